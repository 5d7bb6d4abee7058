"""Compares `iiet eval` with EleutherAI's lm-evaluation-harness on the same model directory and the same local data.

    pip install lm_eval==0.4.13 torch safetensors transformers accelerate
    python benches/peers/lm_eval_compare.py --model runs/tiny/model --data my-data --tasks arc_easy,piqa

runs `cargo xtask eval` and the harness, the latter with a model class over plain PyTorch (`lm_eval_models.py`) or,
with --hf, with its own HFLM (`lm_eval --model hf`), and prints for each task the differences of metrics, standard errors and
log-likelihoods. Ends with 1 if a prompt, a hash of a record or an accuracy differs, or a log-likelihood by more than
1e-3 nats (for texts of more than 1000 nats, by more than 1e-6 of them).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DISABLE_MULTIPROC", "1")

import datasets  # noqa: E402
import lm_eval  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from lm_eval import evaluator  # noqa: E402
from lm_eval.api.model import TemplateLM  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # noqa: E402

from lm_eval_models import LanguageModel  # noqa: E402

TOLERANCE = 1e-3

# The tasks of this project alone, as the harness would be told of them.
OWN = {
    "heldout_bpb": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text",
                    "metrics": ["word_perplexity", "byte_perplexity", "bits_per_byte"]},
    "heldout_cloze": {"output_type": "loglikelihood", "doc_to_text": "context", "doc_to_target": "target",
                      "metrics": ["perplexity", "acc"]},
    "heldout_choice": {"output_type": "multiple_choice", "doc_to_text": "context", "doc_to_target": "answer",
                       "doc_to_choice": "choices", "metrics": ["acc", "acc_norm", "acc_bytes"]},
}


class PlainPyTorch(TemplateLM):
    """The harness's contract over `LanguageModel`, one request at a time: no batching, no padding, no caches."""

    def __init__(self, directory):
        super().__init__()
        self.model = LanguageModel(directory)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=True)
        self.max_length = self.model.config.get("max_position_embeddings", 2048)

    @property
    def eot_token_id(self):
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self):
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(self, string, add_special_tokens=None, **_):
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def _loglikelihood_tokens(self, requests, **_):
        answers = []
        for _, context, continuation in requests:
            tokens = (context + continuation)[-(self.max_length + 1) :]
            logits = self.model.logits(torch.tensor([tokens[:-1]]))[0, -len(continuation) :]
            targets = torch.tensor(continuation)
            chosen = logits.log_softmax(-1).gather(-1, targets[:, None])
            answers.append((float(chosen.sum()), bool((logits.argmax(-1) == targets).all())))
        return answers

    def loglikelihood_rolling(self, requests, **_):
        sums = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            pairs = [("", *make_disjoint_window(window)) for window in windows]
            sums.append(sum(value for value, _ in self._loglikelihood_tokens(pairs)))
        return sums

    def generate_until(self, requests, **_):
        texts = []
        for request in requests:
            context, options = request.args
            options = normalize_gen_kwargs(options, 256)
            until = handle_stop_sequences(options["until"], self.tokenizer.decode(self.eot_token_id))
            room = self.max_length - options["max_gen_toks"]
            prompt = self.tok_encode(context)[-room:]
            tokens, new = list(prompt), []
            while len(new) < options["max_gen_toks"]:
                token = int(self.model.logits(torch.tensor([tokens]))[0, -1].argmax())
                if token == self.eot_token_id:
                    break
                tokens.append(token)
                new.append(token)
            texts.append(postprocess_generated_text(self.tokenizer.decode(new, skip_special_tokens=True), until, None))
        return texts


def local_files(data, task, subset):
    """The files of each part under data/task, called as on the hub."""
    parts = {}
    for folder in (data / task, data / task / (subset or "."), data / task / "data"):
        for part, names in {"train": ["train"], "validation": ["validation", "valid"], "test": ["test"]}.items():
            for file in sorted(folder.glob("*")) + sorted((folder / part).glob("*.arrow")):
                words = "".join(c if c.isalnum() else " " for c in file.stem).split()
                if file.suffix in (".jsonl", ".parquet", ".arrow") and (set(words) & set(names) or file.parent.name == part):
                    parts.setdefault(part, []).append(str(file))
        if parts:
            return parts
    sys.exit(f"no data for {task} under {data / task}")


def read_locally(data, manager, tasks):
    """Makes `datasets.load_dataset` read the files of `data` for the data sets that the tasks name."""
    where = {}
    for task in tasks:
        config = manager.task_index[task].cfg if task in manager.task_index else {}
        loaded = config if config and "dataset_path" in config else load_config(manager, task)
        where[loaded["dataset_path"], loaded.get("dataset_name")] = task
    real = datasets.load_dataset

    def load(path, name=None, **options):
        if (path, name) not in where:
            return real(path, name, **options)
        files = local_files(data, where[path, name], name)
        kinds = {Path(file).suffix for part in files.values() for file in part}
        builder = {".jsonl": "json", ".parquet": "parquet", ".arrow": "arrow"}[kinds.pop()]
        parts = real(builder, data_files=files, cache_dir=tempfile.mkdtemp())
        # The harness opens the part that examples come from even where none are drawn, and `iiet eval` evaluates
        # validation data where there is nothing else.
        some = next(iter(parts.values()))
        parts.setdefault("test", parts.get("validation", some))
        parts.setdefault("train", some.select([]))
        return parts

    datasets.load_dataset = load


def load_config(manager, task):
    import yaml

    path = Path(manager.task_index[task].yaml_path)
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda _, node: node.value)
    config = yaml.load(path.read_text(), loader)
    if "include" in config:
        config = yaml.load((path.parent / config["include"]).read_text(), loader) | config
    return config


def own_task(task, file):
    config = dict(OWN[task])
    metrics = config.pop("metrics")
    config |= {"task": task, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}},
               "test_split": "test", "target_delimiter": "", "metric_list": [{"metric": metric} for metric in metrics],
               "metadata": {"version": 1.0}}
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--num-fewshot", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--hf", action="store_true", help="the harness's own HFLM")
    parser.add_argument("--iiet", default="cargo xtask", help="how to run iiet")
    parser.add_argument("--cache", type=Path, default=Path("data"), help="of the heldout tasks")
    arguments = parser.parse_args()
    tasks = arguments.tasks.split(",")

    ours = Path(tempfile.mkdtemp())
    command = [*arguments.iiet.split(), "eval", "--model", str(arguments.model), "--tasks", arguments.tasks,
               "--num-fewshot", str(arguments.num_fewshot), "--out", str(ours / "results.json"), "--log-samples",
               "--cache", str(arguments.cache)]
    command += ["--data", str(arguments.data)] if arguments.data else []
    command += ["--limit", str(arguments.limit)] if arguments.limit else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((ours / "results.json").read_text())

    manager = TaskManager()
    theirs = [task for task in tasks if task not in OWN]
    read_locally(arguments.data, manager, theirs)
    asked = list(theirs)
    for task in tasks:
        if task in OWN:
            files = sorted(arguments.cache.glob(f"heldout-*/{task}.jsonl"), key=lambda file: file.stat().st_mtime)
            asked.append(own_task(task, files[-1]))
    if arguments.hf:
        # The Python files beside the weights are what iiet wrote there.
        lm = HFLM(pretrained=str(arguments.model), device="cpu", dtype="float32", batch_size=8, trust_remote_code=True)
    else:
        lm = PlainPyTorch(arguments.model)
    # The harness draws examples for a task of its own only if it says where from; these have one part.
    expected = evaluator.simple_evaluate(lm, tasks=asked, num_fewshot=arguments.num_fewshot, limit=arguments.limit,
                                         task_manager=manager, log_samples=True)

    failed = False
    print(f"lm_eval {lm_eval.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, "
          f"Python {platform.python_version()}")
    print(f"{'task':<17}{'n':>6}  {'metric':<17}{'iiet':>14}{'harness':>14}{'difference':>12}")
    for task in tasks:
        result, reference = found["results"][task], expected["results"][task]
        for key in reference:
            if "," not in key:
                continue
            a, b = result[key], reference[key]
            difference = 0.0 if a == b else abs(a - b) if "N/A" not in (a, b) else float("nan")
            limit = 1e-12 if key.startswith("acc") else 1e-3 * max(1.0, abs(b) if b != "N/A" else 1.0)
            failed |= not difference <= limit
            show = lambda x: f"{x:>14.8g}" if x != "N/A" else f"{x:>14}"
            print(f"{task:<17}{reference['sample_len']:>6}  {key.split(',')[0]:<17}{show(a)}{show(b)}{difference:>12.1e}")
        worst, prompts, hashes, greedy, beyond = 0.0, 0, 0, 0, False
        (file,) = ours.glob(f"samples_{task}_*.jsonl")
        lines = file.read_text().splitlines()
        samples = sorted(expected["samples"][task], key=lambda sample: sample["doc_id"])
        failed |= len(lines) != len(samples)
        for line, sample in zip(lines, samples):
            record = json.loads(line)
            texts = [list(texts.values()) for texts in record["arguments"].values()]
            prompts += texts != [list(texts) for texts in sample["arguments"]]
            hashes += any(record[key] != sample[key] for key in ("doc_hash", "prompt_hash", "target_hash"))
            for a, b in zip(record["filtered_resps"], sample["filtered_resps"]):
                if isinstance(a, list):
                    greedy += a[1] != str(b[1])
                    a, b = a[0], b[0]
                a = float(a)
                worst = max(worst, abs(a - b))
                # The harness sums a window's tokens in f32, whose steps grow with the sum.
                beyond |= not abs(a - b) <= TOLERANCE * max(1.0, abs(b) / 1000)
        failed |= beyond or prompts + hashes > 0
        versions = "" if found["versions"][task] == expected["versions"][task] else ", VERSIONS DIFFER"
        failed |= bool(versions)
        print(f"{task:<17}{len(lines):>6}  prompts that differ {prompts}, hashes {hashes}, is_greedy {greedy}, largest difference of a "
              f"log-likelihood {worst:.1e} nats{versions}")
    print("DIFFERENT" if failed else "equal")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
