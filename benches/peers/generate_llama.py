"""Prompts and decoding of `iiet` beside llama.cpp, on the CPU, with the same weights.

    pip install torch numpy safetensors tokenizers
    npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
    cargo build --workspace --bin iiet
    python benches/peers/generate_llama.py --iiet target/debug/iiet --modules node_modules

writes a LLaMA of the size of configs/55m.toml with random weights and a byte-level BPE of Python's own library, and for each
type a GGUF file (`iiet convert --to gguf`) and what `iiet` has of that type: f32 and bf16 by --precision, Q8_0 and Q4_0 as
matrices of 8 and 4 bits in groups of 32 (`iiet quantize`), the embedding included. In the types that end in -8 `iiet` rounds the
inputs of products to 8 bits (`--activations 8`), as llama.cpp does with Q8_0 and Q4_0. Both sides continue the same text of 512 tokens
greedily by 128, in turns, with the same number of threads and the same type of the cache (`--cache`; llama.cpp's default
is f16); the weights' file is read anew each time, which does not count. Printed are medians over the rounds and their
ratios. llama.cpp is asked through node-llama-cpp, whose JavaScript takes its share of each token.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from generate_transformers import processor

D_MODEL, D_FF, HEADS, LAYERS, CONTEXT, VOCAB = 512, 1408, 8, 12, 1024, 32000
HERE = Path(__file__).parent
# The type in GGUF, and what iiet makes of the directory.
TYPES = {
    "F32": ("f32", [], ["--precision", "f32"]),
    "BF16": ("bf16", [], ["--precision", "bf16"]),
    "Q8_0": ("q8_0", ["--bits", "8", "--group", "32"], []),
    "Q4_0": ("q4_0", ["--bits", "4", "--group", "32"], []),
    "Q8_0-8": ("q8_0", ["--bits", "8", "--group", "32", "--activations", "8"], []),
    "Q4_0-8": ("q4_0", ["--bits", "4", "--group", "32", "--activations", "8"], []),
}


def write_model(path):
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    torch.manual_seed(1)
    matrix = lambda *shape: torch.randn(*shape) * 0.02
    weights = {"model.embed_tokens.weight": matrix(VOCAB, D_MODEL), "model.norm.weight": torch.ones(D_MODEL)}
    for n in range(LAYERS):
        layer = f"model.layers.{n}"
        weights |= {f"{layer}.self_attn.{p}_proj.weight": matrix(D_MODEL, D_MODEL) for p in "qkvo"}
        weights |= {f"{layer}.mlp.{p}_proj.weight": matrix(D_FF, D_MODEL) for p in ("gate", "up")}
        weights[f"{layer}.mlp.down_proj.weight"] = matrix(D_MODEL, D_FF)
        weights |= {f"{layer}.{norm}_layernorm.weight": torch.ones(D_MODEL) for norm in ("input", "post_attention")}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": D_MODEL,
        "intermediate_size": D_FF, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "max_position_embeddings": CONTEXT, "tie_word_embeddings": True, "eos_token_id": 0,
    }))
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = [file.read_text(errors="replace") for file in sources]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False))
    assert bpe.get_vocab_size() == VOCAB, bpe.get_vocab_size()
    bpe.save(str(path / "tokenizer.json"))
    return bpe, "\n".join(text)


def prompt_of(bpe, text, tokens):
    """A beginning of the text with this many tokens."""
    for end in range(len(text)):
        ids = bpe.encode(text[:end]).ids
        if len(ids) == tokens:
            return text[:end], ids
        assert len(ids) <= tokens, "a character of several tokens in this place"
    raise SystemExit("the text is too short")


def run_iiet(binary, path, options, prompts, new, threads, cache):
    command = [binary, "generate", "--model", path, "--batch", prompts, "--batch-size", "1", "--max-tokens", str(new),
               "--cache", cache, *options]
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found = re.findall(r"(prefill|decode): (\d+) tokens in ([\d.]+) s", result.stderr)
    rates = {name: int(tokens) / float(seconds) for name, tokens, seconds in found}
    return rates["prefill"], rates["decode"]


def run_llama(modules, path, ids, new, threads, cache, folder):
    request, answer = folder / "request.json", folder / "answer.json"
    options = {"prompts": [ids, ids], "count": new, "threads": threads, "cache": cache.upper()}
    request.write_text(json.dumps(options))
    command = ["node", HERE / "llama_cpp.mjs", modules / "node-llama-cpp", path, request, answer]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    answer = json.loads(answer.read_text())
    assert len(answer["greedy"][1]) == new, f"{len(answer['greedy'][1])} of {new} tokens"
    # The first reads the weights' pages from the file.
    return len(ids) / answer["first_seconds"][1], (new - 1) / answer["rest_seconds"][1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iiet", type=Path, required=True, help="the binary")
    parser.add_argument("--modules", type=Path, required=True, help="node_modules with node-llama-cpp")
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens decoded")
    parser.add_argument("--cache", choices=["f32", "f16"], default="f16", help="type of the keys and values kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    threads, new = arguments.threads, arguments.new
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "model").mkdir()
        bpe, text = write_model(folder / "model")
        prompt, ids = prompt_of(bpe, text, arguments.prompt)
        prompts = folder / "prompts.jsonl"
        prompts.write_text((json.dumps(prompt) + "\n") * 2)
        sides = {}
        for name in arguments.types.split(","):
            dtype, quantise, options = TYPES[name]
            gguf, own = folder / f"{name}.gguf", folder / "model"
            model = ["--model", folder / "model"]
            subprocess.run([arguments.iiet, "convert", *model, "--to", "gguf", "--dtype", dtype, "--out", gguf],
                           check=True, stdout=subprocess.DEVNULL)
            if quantise:
                own = folder / name
                subprocess.run([arguments.iiet, "quantize", *model, *quantise, "--out", own],
                               check=True, stdout=subprocess.DEVNULL)
            sides[name] = (own, options, gguf, [], [])
        # One round more than is counted: the first warms both up.
        for number in range(arguments.rounds + 1):
            for own, options, gguf, ours, theirs in sides.values():
                our = run_iiet(arguments.iiet, own, options, prompts, new, threads, arguments.cache)
                their = run_llama(arguments.modules, gguf, ids, new, threads, arguments.cache, folder)
                if number > 0:
                    ours.append(our)
                    theirs.append(their)
        version = subprocess.run([arguments.iiet, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        package = json.loads((arguments.modules / "node-llama-cpp/package.json").read_text())["version"]
        print(f"{processor()}; {version}; node-llama-cpp {package}; {threads} threads, median of {arguments.rounds} rounds "
              f"in turns; {LAYERS} layers of width {D_MODEL}, a cache in "
              f"{arguments.cache}, a prompt of {arguments.prompt} tokens, {new} after it")
        print("        prompt, tokens/s            decoding, tokens/s")
        print("type    iiet   llama.cpp  ratio     iiet   llama.cpp  ratio")
        for name, (_, _, _, ours, theirs) in sides.items():
            cells = []
            for i in range(2):
                our, their = (statistics.median(rates[i] for rates in side) for side in (ours, theirs))
                cells.append(f"{our:7.1f} {their:9.1f} {our / their:7.2f}")
            print(f"{name:6}{'   '.join(cells)}")


if __name__ == "__main__":
    main()
