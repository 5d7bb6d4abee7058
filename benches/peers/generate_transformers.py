"""Prefill and decoding of `iiet` beside Hugging Face transformers, on the CPU, with the same weights.

    pip install torch transformers numpy        # any transformers from 4.57 on
    cargo build --workspace --bin iiet
    python benches/peers/generate_transformers.py --iiet target/debug/iiet

writes a directory of the size of configs/55m.toml (explicit Euler, that is a LLaMA) with random
weights and a tokenizer of words, and lets both continue the same prompt greedily with the same
number of threads, in turns. Printed are medians over the rounds and their ratios; that both choose
the same tokens is checked first.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path


def write_model(path, vocab):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    import torch

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=512, intermediate_size=1408, num_hidden_layers=12,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048,
        rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=0, eos_token_id=None, pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    # One word, one token: prompts of exactly the length asked for.
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocab)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(path / "tokenizer.json"))


def processor():
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run_iiet(binary, path, ids, new, threads):
    """Continuation, seconds of prefill, seconds of decoding."""
    prompts = path / "prompts.jsonl"
    prompts.write_text(json.dumps(" ".join(f"w{i}" for i in ids)) + "\n")
    result = subprocess.run(
        [binary, "generate", "--model", path, "--batch", prompts, "--max-tokens", str(new)],
        env={**os.environ, "RAYON_NUM_THREADS": str(threads)},
        capture_output=True, text=True, check=True,
    )
    text = json.loads(result.stdout)["text"]
    found = dict(re.findall(r"(prefill|decode): \d+ tokens in ([\d.]+) s", result.stderr))
    return [int(word[1:]) for word in text.split()], float(found["prefill"]), float(found["decode"])


def run_transformers(model, ids, new):
    import inspect

    import torch
    from transformers import DynamicCache

    # transformers 5 has another word for it.
    word = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    with torch.inference_mode():
        started = time.perf_counter()
        cache = DynamicCache(config=model.config)
        out = model(torch.tensor([ids]), use_cache=True, logits_to_keep=1, **{word: cache})
        token = out.logits[:, -1].argmax(-1)
        prefill = time.perf_counter() - started
        chosen = [token]
        started = time.perf_counter()
        for _ in range(new - 1):
            out = model(token[:, None], use_cache=True, logits_to_keep=1, **{word: cache})
            token = out.logits[:, -1].argmax(-1)
            chosen.append(token)
        decode = time.perf_counter() - started
    return [int(token) for token in chosen], prefill, decode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iiet", type=Path, required=True, help="the binary")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens decoded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--vocab", type=int, default=32000)
    arguments = parser.parse_args()

    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_model(path, arguments.vocab)
        model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
        ids = [i * 7919 % arguments.vocab for i in range(arguments.prompt)]
        ours, theirs = [], []
        # One round more than is counted: the first warms both up.
        for number in range(arguments.rounds + 1):
            our_ids, *our_times = run_iiet(
                arguments.iiet, path, ids, arguments.new, arguments.threads)
            their_ids, *their_times = run_transformers(model, ids, arguments.new)
            assert our_ids == their_ids, f"other tokens:\n{our_ids}\n{their_ids}"
            if number > 0:
                ours.append(our_times)
                theirs.append(their_times)
    version = subprocess.run([arguments.iiet, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{processor()}; {version}; torch {torch.__version__}, transformers {transformers.__version__}; "
          f"{arguments.threads} threads, median of {arguments.rounds} rounds in turns; same tokens")
    for i, (name, tokens) in enumerate([("prefill", arguments.prompt), ("decode", arguments.new - 1)]):
        our_rate, their_rate = (
            tokens / statistics.median(times[i] for times in side) for side in (ours, theirs))
        print(f"{name:8} {tokens:5} tokens   iiet {our_rate:8.1f} tokens/s   "
              f"transformers {their_rate:8.1f} tokens/s   ratio {our_rate / their_rate:.2f}")


if __name__ == "__main__":
    main()
