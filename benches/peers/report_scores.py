"""Writes what sacreBLEU's paired bootstrap makes of three systems, for the test of the report's scores.

    pip install sacrebleu==2.6.0 numpy
    python benches/peers/report_scores.py

The systems are `a`, `b` and the second reference of the first regular segments of
crates/eval/tests/texts/segments.jsonl, scored against the first reference; `a` is the baseline. The numbers
are those that `sacrebleu --paired-bs` prints, with its 1000 resamples and its seed 12345.
"""

import json
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

TESTS = Path(__file__).parents[2] / "crates/eval/tests"
SEGMENTS = 40


def main():
    lines = (TESTS / "texts/segments.jsonl").read_text().split("\n")
    rows = [json.loads(line) for line in lines if line]
    rows = [row for row in rows if not row["odd"]][:SEGMENTS]
    systems = [
        ("a", [row["a"] for row in rows]),
        ("b", [row["b"] for row in rows]),
        ("c", [row["references"][1] for row in rows]),
    ]
    references = [[row["references"][0] for row in rows]]
    test = PairedTest(systems, {"bleu": BLEU(), "chrf": CHRF()}, references, "bs", 1000)
    signatures, scores = test()
    expected = {"segments": SEGMENTS}
    for key, signature in signatures.items():
        expected[key] = {
            "signature": signature.format(),
            "systems": [
                {
                    "score": f"{result.score:.2f}",
                    "interval": f"{result.mean:.2f} ± {result.ci:.2f}",
                    "p_value": result.p_value and f"{result.p_value:.4f}",
                }
                for result in scores[key]
            ],
        }
    text = json.dumps(expected, ensure_ascii=False, indent=2)
    (TESTS / "report/paired.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
