"""Writes what lm-evaluation-harness 0.4.13 logs of the small files in data/: samples.json.

    pip install lm_eval==0.4.13 torch transformers safetensors
    python crates/eval/tests/harness/samples.py

`task_hashes` for 0, 1 and 5 examples, the names of the files, and of each task the first two records at 0 examples as
they stand in `samples_TASK_DATE.jsonl`. The scorer is that of expected.py.
"""

import json
import tempfile
from pathlib import Path

from expected import HERE, TASKS, Hashing, lines

from lm_eval.loggers import EvaluationTracker
from lm_eval_compare import evaluator, read_locally, TaskManager

RECORDS = 2


def logged(folder, manager, shots):
    tasks = [task for task in TASKS if shots == 0 or task != "wikitext"]
    found = evaluator.simple_evaluate(Hashing(), tasks=tasks, num_fewshot=shots, task_manager=manager)
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name_sanitized = "hash"
    samples = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=samples)
    for task in tasks:
        tracker.save_results_samples(task, samples[task])
    return found["task_hashes"]


def main():
    manager = TaskManager()
    read_locally(HERE / "data", manager, TASKS)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        hashes = {str(shots): logged(folder / str(shots), manager, shots) for shots in (0, 1, 5)}
        files = sorted((folder / "0" / "hash").glob("samples_*.jsonl"))
        records = {}
        for file in files:
            task = file.name[file.name.find("_") + 1:file.name.rfind("_")]
            records[task] = [json.loads(line) for line in file.read_text().splitlines()[:RECORDS]]
    entries = {"task_hashes": hashes, "file": files[0].name, **records}
    (HERE / "samples.json").write_text(lines(entries))


if __name__ == "__main__":
    main()
