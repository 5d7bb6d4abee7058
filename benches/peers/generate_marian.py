"""Beam search of `iiet` beside Marian models in Hugging Face transformers, on the CPU, at equal size.

    pip install torch transformers numpy safetensors        # any transformers from 4.57 on
    cargo build --workspace --bin iiet
    python benches/peers/generate_marian.py --iiet target/debug/iiet

writes an encoder-decoder of six plain layers on each side with random weights and a tokenizer of words, makes a Marian
model with as many layers, heads and parameters in each layer, and lets both decode the same sources with the same beam, batch and
number of threads, in turns. Random weights end no target by themselves, so both sides decode exactly as many
tokens as asked for. Printed are medians over the rounds and their ratio; reading the model does not count on either side.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from generate_transformers import processor

D_MODEL, D_FF, HEADS, LAYERS, CONTEXT = 512, 1408, 8, 6, 512
# The ReLU layer of Marian with as many weights as SwiGLU's three matrices.
MARIAN_FF = D_FF * 3 // 2


def write_model(path, vocab):
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(1)
    matrix = lambda *shape: torch.randn(*shape) * 0.02
    weights = {"model.shared.weight": matrix(vocab, D_MODEL)}
    for side in ("encoder", "decoder"):
        weights[f"model.{side}.norm.weight"] = torch.ones(D_MODEL)
        for n in range(LAYERS):
            layer = f"model.{side}.layers.{n}"
            crossed = side == "decoder"
            norms = ["input_layernorm", "post_attention_layernorm"] + ["encoder_attn_layer_norm"] * crossed
            weights |= {f"{layer}.{name}.weight": torch.ones(D_MODEL) for name in norms}
            for attention in ["self_attn"] + ["encoder_attn"] * crossed:
                weights |= {f"{layer}.{attention}.{p}_proj.weight": matrix(D_MODEL, D_MODEL) for p in "qkvo"}
            weights |= {f"{layer}.mlp.{p}_proj.weight": matrix(D_FF, D_MODEL) for p in ("gate", "up")}
            weights[f"{layer}.mlp.down_proj.weight"] = matrix(D_MODEL, D_FF)
    save_file(weights, path / "model.safetensors")
    plain = {"num_hidden_layers": LAYERS, "solver": "explicit_euler"}
    (path / "config.json").write_text(json.dumps({
        "is_encoder_decoder": True, "vocab_size": vocab, "hidden_size": D_MODEL, "intermediate_size": D_FF,
        "num_attention_heads": HEADS, "max_position_embeddings": CONTEXT, "tie_word_embeddings": True,
        "decoder_start_token_id": 0, "eos_token_id": 0, "encoder": plain, "decoder": plain,
    }))
    words = Tokenizer(models.WordLevel({"<|endoftext|>": 0} | {f"w{i}": i for i in range(1, vocab)}, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["<|endoftext|>"])
    words.save(str(path / "tokenizer.json"))
    return sum(weight.numel() for weight in weights.values())


def marian(vocab):
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(1)
    return MarianMTModel(MarianConfig(
        vocab_size=vocab, d_model=D_MODEL, encoder_layers=LAYERS, decoder_layers=LAYERS,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=MARIAN_FF, decoder_ffn_dim=MARIAN_FF,
        max_position_embeddings=CONTEXT, share_encoder_decoder_embeddings=True, pad_token_id=0, eos_token_id=0,
        decoder_start_token_id=0, forced_eos_token_id=None, bad_words_ids=None,
    )).eval()


def run_iiet(a, path, sources):
    """Seconds of decoding."""
    batch = path / "sources.txt"
    batch.write_text("".join(" ".join(f"w{i}" for i in ids) + "\n" for ids in sources))
    length = ["--min-tokens", str(a.new), "--max-tokens", str(a.new)]
    result = subprocess.run(
        [a.iiet, "generate", "--model", path, "--batch", batch, "--batch-size", str(a.batch), "--beam", str(a.beam), *length],
        env={**os.environ, "RAYON_NUM_THREADS": str(a.threads)}, capture_output=True, text=True, check=True,
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == len(sources) and all(line["tokens"] == a.new for line in lines), result.stdout[:500]
    return float(re.search(r"tokens in ([\d.]+) s", result.stderr)[1])


def run_transformers(a, model, sources):
    import torch

    started = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(sources), a.batch):
            ids = torch.tensor([[*ids, 0] for ids in sources[first : first + a.batch]])
            # The start token and, at the end, the token that would have to be forced.
            found = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=a.beam, do_sample=False,
                min_new_tokens=a.new, max_new_tokens=a.new, length_penalty=0.6)
            assert found.shape[1] == a.new + 1, found.shape
    return time.perf_counter() - started


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--iiet", type=Path, required=True, help="the binary")
    p.add_argument("--beam", type=int, default=4)
    p.add_argument("--batch", type=int, default=8, help="sources decoded together")
    p.add_argument("--sources", type=int, default=16)
    p.add_argument("--source", type=int, default=32, help="tokens of a source")
    p.add_argument("--new", type=int, default=32, help="tokens of a target")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--vocab", type=int, default=32000)
    a = p.parse_args()

    import torch
    import transformers

    torch.set_num_threads(a.threads)
    sources = [[1 + (number * 7919 + i * 104729) % (a.vocab - 1) for i in range(a.source)] for number in range(a.sources)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        own = write_model(path, a.vocab)
        model = marian(a.vocab)
        theirs = sum(parameter.numel() for parameter in set(model.parameters()))
        times = ([], [])
        # One round more than is counted: the first warms both up.
        for number in range(a.rounds + 1):
            measured = run_iiet(a, path, sources), run_transformers(a, model, sources)
            if number > 0:
                for side, seconds in zip(times, measured):
                    side.append(seconds)
    version = subprocess.run([a.iiet, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{processor()}; {version}, {own / 1e6:.1f} M parameters; torch {torch.__version__}, transformers "
          f"{transformers.__version__}, Marian of {theirs / 1e6:.1f} M; {a.threads} threads, median of {a.rounds} rounds in turns")
    ours, theirs = (a.sources * a.new / statistics.median(side) for side in times)
    print(f"beam {a.beam}, batch {a.batch}: iiet {ours:.1f} tokens/s   transformers {theirs:.1f} tokens/s   ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
