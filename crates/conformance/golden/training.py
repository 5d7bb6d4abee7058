"""The losses of 30 training steps of configs/tiny.toml in PyTorch, for src/training.rs.

    cargo run --workspace --example tiny_model /tmp/tiny
    python training.py /tmp/tiny > training.json

The model is that of benches/peers/torch_step.py, from the weights in the directory; AdamW, clipping
and the learning rate are PyTorch's and the configuration's. Everything is computed in float32.

Needs: Python 3.11, torch 2.4 or later, numpy, safetensors.
"""

import json
import sys
import tomllib
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "benches/peers"))
from torch_step import BETAS, CLIP, WEIGHT_DECAY, CausalLm  # the configuration's defaults too

STEPS = 30


def text(tokens):
    tokens_so_far = []
    for i in range(tokens):
        u = (i + 1) * 2654435761 % 2**32
        u = (u ^ (u >> 15)) * 2246822519 % 2**32
        u = u ^ (u >> 13)
        if tokens_so_far and u & 3 == 0:
            tokens_so_far.append(tokens_so_far[-1])
        else:
            tokens_so_far.append((u >> 20 & 63) * (u >> 10 & 63))
    return tokens_so_far


def main():
    directory = Path(sys.argv[1])
    config = tomllib.loads(Path(__file__).with_name("training.toml").read_text())
    train, seq = config["train"], config["model"]["seq_len"]
    assert train["warmup"] >= STEPS, "the learning rate is only warming up"
    c = json.loads((directory / "config.json").read_text())
    c.setdefault("num_key_value_heads", c["num_attention_heads"])
    model = CausalLm(c)
    weights = load_file(directory / "model.safetensors")
    if c["tie_word_embeddings"]:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    model.model.place(seq)
    is_matrix = lambda name: "proj" in name or "embed" in name or "head" in name
    groups = [
        {"params": [p for n, p in model.named_parameters() if is_matrix(n)], "weight_decay": WEIGHT_DECAY},
        {"params": [p for n, p in model.named_parameters() if not is_matrix(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=train["lr"], betas=BETAS, eps=1e-8)
    batches = torch.tensor(text(STEPS * train["batch"] * (seq + 1))).view(STEPS, train["batch"], seq + 1)
    losses = []
    for step, windows in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = train["lr"] * step / train["warmup"]
        loss = model(windows[:, :-1], windows[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(round(loss.item(), 6))
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
