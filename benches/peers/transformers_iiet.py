"""Holds the Python files that `iiet` writes beside the weights against `iiet` itself, in the installed transformers.

    pip install torch transformers accelerate numpy safetensors lm_eval==0.4.13
    cargo build --workspace --bin iiet
    python benches/peers/transformers_iiet.py --iiet target/debug/iiet

For every golden case, and for every solver that has none (made from a case with `iiet convert`), the directory that
`iiet convert --to transformers` writes is loaded with `AutoModelForCausalLM` and compared:

    logits        with those of `iiet logits`: within 1e-4, with sdpa and with eager attention
    gradients     of the case's loss with the golden ones: within 1e-4 of the largest, also with gradient checkpointing
    cache         logits token by token, in pieces and beside padding on the left with those of the full pass
    generate      greedy text with that of `iiet generate`, with a cache, without, in a batch, with beams against none
    saved         what `save_pretrained` writes: `iiet logits` gives the same logits, bit for bit
    lm_eval       with --lm-eval: the harness's own `hf` model with `iiet eval` on generated items, by lm_eval_compare.py

Ends with 1 if anything differs.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The modules that transformers copies before it imports them belong to this run alone.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="transformers_iiet_")

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

LIMIT = 1e-4
GOLDEN = Path(__file__).parents[2] / "crates/conformance/golden/models"
LLAMA = Path(__file__).parents[2] / "crates/cli/tests/llama"
# Solvers and options without golden numbers: name, directory that the weights are from, options of `iiet convert`.
IIET = ["--solver", "iterative_implicit_euler"]
OTHERS = [
    ("adams-bashforth", GOLDEN / "euler-gqa-untied", ["--solver", "adams_bashforth"]),
    ("adams-bashforth-heun", GOLDEN / "euler-gqa-untied", ["--solver", "adams_bashforth", "--set", "first_step='heun'"]),
    ("rk2", GOLDEN / "rk4", ["--solver", "runge_kutta", "--set", "predictor_order=2"]),
    ("llama-3-iiet", LLAMA / "byte-level", ["--solver", "iterative_implicit_euler", "--set", "iterations=[2, 1]"]),
    ("llama-2-implicit", LLAMA / "sentence-piece", ["--solver", "implicit_euler", "--set", "iterations=2"]),
    ("gate-first-norm", GOLDEN / "iiet-r3-gqa-untied", [*IIET, "--set", "gate=0.4", "--set", "normalise_first=true"]),
    ("tolerance", GOLDEN / "iiet-r3-gqa-untied", [*IIET, "--set", "tolerance=0.5"]),
    ("anderson", GOLDEN / "iiet-r3-gqa-untied", [*IIET, "--set", "anderson=2", "--set", "backprop=1"]),
    ("implicit-anderson", GOLDEN / "implicit-euler-2-0-1-gqa", [
        "--solver", "implicit_euler", "--set", "iterations=4", "--set", "anderson=2", "--set", "tolerance=0.1",
        "--set", "gradient='implicit'"]),
    ("pcformer-rk2", GOLDEN / "e-iiet-3-1-0", ["--solver", "predictor_corrector", "--set", "predictor_order=2"]),
]
PROMPTS = ["An explicit step", "A longer prompt, with a comma: y(n)", "h", "Three words more"]
END = "<|endoftext|>"


def write_tokenizer(path, vocab):
    """One token for each printable character, and one that ends a text, in a vocabulary of the case's size."""
    from tokenizers import Tokenizer, decoders, models

    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    words = {word: i for i, word in enumerate([END, *characters][:vocab])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(path / "tokenizer.json"))


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


class Case:
    """A model directory for transformers, the numbers that are known of it, and the findings."""

    def __init__(self, iiet, name, source, convert, folder):
        self.iiet, self.name, self.failed = iiet, name, False
        start, self.path = folder / f"{name}-start", folder / name
        shutil.copytree(source, start)
        config = json.loads((start / "config.json").read_text())
        if not (start / "tokenizer.json").exists():
            (start / "config.json").write_text(json.dumps(config | {"eos_token_id": 0}))
            write_tokenizer(start, config["vocab_size"])
        run(iiet, "convert", "--model", start, "--to", "transformers", *convert, "--out", self.path)
        numbers = source / "case.safetensors"
        self.reference = load_file(numbers) if numbers.exists() and not convert else None
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(0, config["vocab_size"], (2, 24), generator=generator)
        if self.reference is not None:
            self.ids = self.reference["input_ids"]

    def model(self, **options):
        options = {"attn_implementation": "sdpa", "trust_remote_code": True} | options
        return AutoModelForCausalLM.from_pretrained(self.path, **options).eval()

    def iiet_logits(self, path):
        out = self.path.with_suffix(".logits.safetensors")
        ids = ";".join(",".join(map(str, row)) for row in self.ids.tolist())
        run(self.iiet, "logits", "--model", path, "--ids", ids, "--out", out)
        with safe_open(out, "pt") as file:
            return file.get_tensor("logits")

    def found(self, what, difference, limit=LIMIT):
        holds = difference <= limit
        self.failed |= not holds
        print(f"{self.name:26} {what:46} {difference:8.1e} of {limit:.0e}{'' if holds else '   DIFFERENT'}", flush=True)

    def compare(self):
        self.logits()
        if self.reference is not None:
            self.gradients()
        self.cached()
        self.generated()
        self.saved()

    @torch.no_grad()
    def logits(self):
        expected = self.iiet_logits(self.path)
        for attention in ("sdpa", "eager"):
            logits = self.model(attn_implementation=attention)(self.ids).logits
            self.found(f"logits, {attention}", largest(logits - expected))
        if self.reference is not None:
            self.found("logits, golden", largest(logits - self.reference["logits"]))

    def gradients(self):
        for checkpointing in (None, {"use_reentrant": False}, {"use_reentrant": True}):
            model = self.model().train()
            what = "gradients"
            if checkpointing is not None:
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
                what += f", checkpointing, reentrant {checkpointing['use_reentrant']}"
            loss = model(self.ids, labels=self.ids).loss
            loss.backward()
            parameters = dict(model.named_parameters())
            expected = {name[5:]: value for name, value in self.reference.items() if name.startswith("grad.")}
            assert parameters.keys() == expected.keys(), parameters.keys() ^ expected.keys()
            scale = max(largest(value) for value in expected.values())
            zero = torch.zeros(())
            worst = max(largest((zero if p.grad is None else p.grad) - expected[n]) for n, p in parameters.items())
            self.found(what, worst / scale)
            self.found("loss", abs(loss.item() - self.reference["loss"].item()), 1e-5)

    @torch.no_grad()
    def cached(self):
        model = self.model()
        full = model(self.ids).logits
        seq = self.ids.shape[1]
        for what, cuts in (("token by token", range(seq + 1)), ("in pieces", (0, 7, 8, 20, seq))):
            # As generate makes it.
            cache, parts = DynamicCache(config=model.config), []
            for start, end in zip(cuts, cuts[1:]):
                output = model(self.ids[:, start:end], past_key_values=cache, use_cache=True)
                parts.append(output.logits)
            self.found(f"cache, {what}", largest(torch.cat(parts, 1) - full))
        width = 5
        padded = torch.cat([torch.zeros(len(self.ids), width, dtype=torch.long), self.ids], 1)
        mask = torch.cat([torch.zeros(len(self.ids), width), torch.ones_like(self.ids)], 1).long()
        self.found("padding on the left", largest(model(padded, attention_mask=mask).logits[:, width:] - full))

    def generated(self):
        prompts = self.path.with_suffix(".prompts.jsonl")
        prompts.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
        lines = run(self.iiet, "generate", "--model", self.path, "--batch", prompts, "--max-tokens", 40)
        expected = [json.loads(line)["text"] for line in lines.splitlines()]
        tokenizer = AutoTokenizer.from_pretrained(self.path, padding_side="left", trust_remote_code=True)
        tokenizer.pad_token = tokenizer.eos_token
        model = self.model()

        def texts(prompts, **options):
            inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=40, pad_token_id=0, **options)
            return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

        alone = [texts([prompt])[0] for prompt in PROMPTS]
        self.found("generate: texts that differ", sum(a != b for a, b in zip(alone, expected, strict=True)), 0)
        without = [texts([prompt], use_cache=False)[0] for prompt in PROMPTS]
        self.found("generate without a cache", sum(a != b for a, b in zip(without, expected, strict=True)), 0)
        batch = texts(PROMPTS)
        self.found("generate in a batch", sum(a != b for a, b in zip(batch, expected, strict=True)), 0)
        beams = [texts(PROMPTS, num_beams=3, use_cache=cache) for cache in (True, False)]
        self.found("beams with a cache and without", sum(a != b for a, b in zip(*beams, strict=True)), 0)

    def saved(self):
        again = self.path.with_name(f"{self.name}-saved")
        self.model().save_pretrained(again)
        self.found("saved and read by iiet", largest(self.iiet_logits(again) - self.iiet_logits(self.path)), 0)
        config = json.loads((again / "config.json").read_text())
        for file in {value.split(".")[0] + ".py" for value in config.get("auto_map", {}).values()}:
            assert (again / file).exists(), f"save_pretrained left out {file}"
        with torch.no_grad():
            loaded = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True)
            self.found("saved and loaded", largest(loaded(self.ids).logits - self.model()(self.ids).logits), 0)

    def lm_eval(self, data):
        script = Path(__file__).with_name("lm_eval_compare.py")
        command = [sys.executable, script, "--model", self.path, "--data", data, "--tasks", ",".join(ITEMS), "--hf",
                   "--iiet", self.iiet, "--cache", data / "cache"]  # fmt: skip
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if result.returncode != 0:
            print(result.stdout, result.stderr[-2000:], sep="\n")
        self.found("lm_eval --model hf: exit code of the comparison", result.returncode, 0)

    def refused(self):
        """An option that the Python file does not know ends the loading, by its name."""
        path = self.path.with_name(f"{self.name}-newer")
        shutil.copytree(self.path, path)
        config = json.loads((path / "config.json").read_text()) | {"an_option_to_come": 0.5}
        (path / "config.json").write_text(json.dumps(config))
        try:
            transformers.AutoConfig.from_pretrained(path, trust_remote_code=True)
            message = "it was loaded"
        except ValueError as error:
            message = str(error)
        self.found("an unknown option is refused", int("an_option_to_come = 0.5" not in message), 0)


def largest(x):
    return x.abs().max().item()


# Items in the schemas of the hub, of letters that the tokenizer has.
NOUNS = ["step", "slope", "state", "layer", "error", "order", "field", "norm"]
ITEMS = {
    "arc_easy": lambda i, noun: {
        "id": str(i), "question": f"Which {noun} has number {i}?", "answerKey": "ABCD"[i % 4],
        "choices": {"text": [f"the {NOUNS[(i + k) % 8]}" for k in range(4)], "label": list("ABCD")},
    },
    "sciq": lambda i, noun: {
        "question": f"What comes after {noun} {i}?", "support": f"The {noun} {i} is followed by another.",
        "correct_answer": NOUNS[(i + 1) % 8], **{f"distractor{k}": NOUNS[(i + k + 1) % 8] for k in (1, 2, 3)},
    },
    "lambada_openai": lambda i, noun: {"text": f"The {noun} number {i} is small, so the next one is the {NOUNS[(i * 3) % 8]}"},
    "wikitext": lambda i, noun: {"page": f" = The {noun} = \n\n A {noun} of size {i} is a {NOUNS[(i + 5) % 8]} . \n" * (1 + i % 3)},
}  # fmt: skip


def write_items(data):
    for task, item in ITEMS.items():
        (data / task).mkdir(parents=True)
        lines = (json.dumps(item(i, NOUNS[i % 8])) + "\n" for i in range(20))
        (data / task / "test.jsonl").write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iiet", type=Path, required=True, help="the binary")
    parser.add_argument("--golden", type=Path, default=GOLDEN, help="the folder of golden cases")
    parser.add_argument("--case", action="append", help="only this case; repeatable")
    parser.add_argument("--lm-eval", action="store_true", help="compare the harness's hf model with iiet eval, too")
    arguments = parser.parse_args()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
          f"{torch.get_num_threads()} threads")

    golden = sorted(path.parent for path in arguments.golden.glob("*/case.safetensors"))
    listed = [(path.name, path, []) for path in golden]
    listed += [other for other in OTHERS if other[0] not in [path.name for path in golden]]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_items(data)
        for name, source, convert in listed:
            if arguments.case and name not in arguments.case:
                continue
            case = Case(arguments.iiet.resolve(), name, source, convert, Path(folder))
            case.compare()
            if json.loads((case.path / "config.json").read_text())["model_type"] == "iiet":
                case.refused()
            if arguments.lm_eval:
                case.lm_eval(data)
            failed |= case.failed
    print("DIFFERENT" if failed else "equal")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
