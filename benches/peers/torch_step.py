"""Training steps of five solvers in PyTorch, timed one at a time.

The peer of `src/bin/side_by_side.rs`, for language models and encoder-decoders. That program starts it,
sends it a line for each step and reads `SECONDS LOSS` back. The same mathematics from the same weights, written as a PyTorch user would for
speed on a CPU: scaled_dot_product_attention, the earlier states' sum taken once a layer, the fused
AdamW, gradients set to None. When its input ends it prints its peak resident memory in KiB.

    python torch_step.py --model DIR --batch 4 --seq 256 --threads 2 [--compile] [--bf16]
    python torch_step.py --versions

Needs: torch 2.4 or later, numpy, safetensors.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

LR, BETAS, WEIGHT_DECAY, CLIP = 1e-4, (0.9, 0.95), 0.1, 1.0


class RmsNorm(nn.Module):
    def __init__(self, d, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d)), eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.h, self.kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        self.hd = d // self.h
        self.q_proj = nn.Linear(d, self.h * self.hd, bias=False)
        self.k_proj = nn.Linear(d, self.kv * self.hd, bias=False)
        self.v_proj = nn.Linear(d, self.kv * self.hd, bias=False)
        self.o_proj = nn.Linear(self.h * self.hd, d, bias=False)

    def forward(self, x, cos, sin, causal):
        b, t, _ = x.shape
        split = lambda y, n: y.view(b, t, n, self.hd).transpose(1, 2)
        q = rotate(split(self.q_proj(x), self.h), cos, sin)
        k = rotate(split(self.k_proj(x), self.kv), cos, sin)
        v = split(self.v_proj(x), self.kv)
        if self.kv != self.h:
            k, v = (y.repeat_interleave(self.h // self.kv, dim=1) for y in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.o_proj(mixed.transpose(1, 2).reshape(b, t, -1))


class SwiGlu(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f = c["hidden_size"], c["intermediate_size"]
        self.gate_proj = nn.Linear(d, f, bias=False)
        self.up_proj = nn.Linear(d, f, bias=False)
        self.down_proj = nn.Linear(f, d, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    causal = True

    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = Attention(c), SwiGlu(c)
        self.input_layernorm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])

    def forward(self, y, cos, sin):
        y = y + self.self_attn(self.input_layernorm(y), cos, sin, self.causal)
        return y + self.mlp(self.post_attention_layernorm(y))


class History(nn.Module):
    def __init__(self, layers, d):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers + 1, layers + 1))
        self.weight_c = nn.Parameter(torch.zeros(layers + 1, layers + 1))
        self.layer_norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(layers))
        self.rouge_predictions_norm = nn.ModuleList(nn.LayerNorm(d) for _ in range(layers))


def combine(weights, states):
    total = weights[0] * states[0]
    for w, s in zip(weights[1:], states[1:]):
        total = torch.addcmul(total, s, w)
    return total


class Layers(nn.Module):
    """The layers, the solver that integrates through them, and the norm after the last."""

    def __init__(self, c, block):
        super().__init__()
        n, d = c["num_hidden_layers"], c["hidden_size"]
        self.c, self.head_dim = c, d // c["num_attention_heads"]
        self.layers = nn.ModuleList(block(c) for _ in range(n))
        self.norm = RmsNorm(d, c["rms_norm_eps"])
        if c["solver"] in ("predictor_corrector", "iterative_implicit_euler"):
            self.history = History(n, d)
        if c["solver"] == "predictor_corrector":
            self.RK_norm = nn.ModuleList(nn.LayerNorm(d) for _ in range(c["predictor_order"]))
            self.alpha = nn.Parameter(torch.tensor([0.5]))

    def place(self, seq):
        """Computes the rotary tables, once: they are the same in every step."""
        frequency = 1.0 / self.c["rope_theta"] ** (torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        angle = torch.outer(torch.arange(seq).float(), frequency)
        angle = torch.cat([angle, angle], dim=-1)
        self.tables = angle.cos(), angle.sin()

    def forward(self, y, *context):
        blocks = [lambda y, block=block: block(y, *self.tables, *context) for block in self.layers]
        return self.norm(getattr(self, self.c["solver"])(y, blocks))

    def explicit_euler(self, y, blocks):
        for block in blocks:
            y = block(y)
        return y

    def runge_kutta(self, y, blocks):
        for block in blocks:
            k1 = block(y) - y
            if self.c["predictor_order"] == 2:
                z = y + k1
                y = y + (k1 + block(z) - z) / 2
            else:
                z = y + k1 / 2
                k2 = block(z) - z
                z = y + k2 / 2
                k3 = block(z) - z
                z = y + k3
                y = y + (k1 + 2 * k2 + 2 * k3 + block(z) - z) / 6
        return y

    def implicit_euler(self, y, blocks):
        for n, block in enumerate(blocks):
            z = block(y)
            for _ in range(self.corrections(n)):
                z = y + block(z) - z
            y = z
        return y

    def predictor_corrector(self, y, blocks):
        a, order, states = self.alpha, self.c["predictor_order"], [y]
        for n, block in enumerate(blocks):
            k, z = [], y
            for j in range(order):
                k.append(self.RK_norm[j](block(z)))
                z = y + (k[-1] / 2 if order == 4 and j < 2 else k[-1])
            guess = y + combine([a * (1 - a) ** (order - 1 - j) for j in range(order)], k)
            y = self.correct(n, block, guess, 1, states)
        return y

    def iterative_implicit_euler(self, y, blocks):
        states = [y]
        for n, block in enumerate(blocks):
            y = self.correct(n, block, block(y), self.corrections(n), states)
        return y

    def correct(self, n, block, guess, r, states):
        history = self.history
        w, wc = history.weight[n + 1].unbind(), history.weight_c[n + 1].unbind()
        s = history.rouge_predictions_norm[n](guess)
        if r > 0:
            past = combine(w, states)
            for _ in range(r):
                z = torch.addcmul(past, s, w[len(states)])
                s = history.layer_norms[n](block(z))
        states.append(s)
        return combine(wc, states)

    def corrections(self, n):
        r = self.c["iterations"]
        return r if isinstance(r, int) else r[n]


class Backbone(Layers):
    def __init__(self, c):
        super().__init__(c, Block)
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])

    def forward(self, ids):
        return super().forward(self.embed_tokens(ids))


class CrossAttention(Attention):
    """Queries from the decoder, keys and values from the encoder's output, without rotation."""

    def forward(self, x, memory):
        b, t, _ = x.shape
        split = lambda y, n: y.view(b, -1, n, self.hd).transpose(1, 2)
        q, k, v = split(self.q_proj(x), self.h), split(self.k_proj(memory), self.kv), split(self.v_proj(memory), self.kv)
        if self.kv != self.h:
            k, v = (y.repeat_interleave(self.h // self.kv, dim=1) for y in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(b, t, -1))


class EncoderBlock(Block):
    causal = False


class DecoderBlock(Block):
    def __init__(self, c):
        super().__init__(c)
        self.encoder_attn = CrossAttention(c)
        self.encoder_attn_layer_norm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])

    def forward(self, y, cos, sin, memory):
        y = y + self.self_attn(self.input_layernorm(y), cos, sin, self.causal)
        y = y + self.encoder_attn(self.encoder_attn_layer_norm(y), memory)
        return y + self.mlp(self.post_attention_layernorm(y))


class Sequences(nn.Module):
    """An encoder-decoder on sources without padding."""

    def __init__(self, c):
        super().__init__()
        self.c, self.model = c, nn.Module()
        self.model.shared = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.encoder = Layers(c | c["encoder"], EncoderBlock)
        self.model.decoder = Layers(c | c["decoder"], DecoderBlock)

    def sides(self):
        return [self.model.encoder, self.model.decoder]

    def forward(self, ids, targets, source):
        shared = self.model.shared
        memory = self.model.encoder(shared(source))
        hidden = self.model.decoder(shared(ids), memory)
        logits = F.linear(hidden, shared.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=self.c["label_smoothing"])


class CausalLm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.model = Backbone(c)
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        if c["tie_word_embeddings"]:
            self.lm_head.weight = self.model.embed_tokens.weight

    def sides(self):
        return [self.model]

    def forward(self, ids, targets):
        return F.cross_entropy(self.lm_head(self.model(ids)).flatten(0, 1), targets.flatten())


def token(i, vocab):
    """As in side_by_side.rs: cheap, without a pattern that a step could learn."""
    return (i * 2654435761 % 2**32) % vocab


def main():
    if sys.argv[1:] == ["--versions"]:
        print(f"torch {torch.__version__}, Python {platform.python_version()}")
        return
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--batch", type=int, required=True)
    p.add_argument("--seq", type=int, required=True)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--compile", action="store_true", help="torch.compile every layer's field")
    p.add_argument("--bf16", action="store_true", help="forward pass under autocast")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    c = json.loads((a.model / "config.json").read_text())
    c.setdefault("num_key_value_heads", c["num_attention_heads"])
    is_matrix = lambda n: any(word in n for word in ("proj", "embed", "head", "shared"))
    crossed = c.get("is_encoder_decoder", False)
    model = Sequences(c) if crossed else CausalLm(c)
    weights = load_file(a.model / "model.safetensors")
    if c["tie_word_embeddings"] and not crossed:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    for side in model.sides():
        side.place(a.seq)
    matrices = [p for n, p in model.named_parameters() if is_matrix(n)]
    others = [p for n, p in model.named_parameters() if not is_matrix(n)]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=1e-8, fused=True)
    if a.compile:
        # One graph, compiled once: unrolled over layers and corrections it does not end.
        for side in model.sides():
            for block in side.layers:
                block.compile()

    text = [token(i, c["vocab_size"]) for i in range(a.batch * (a.seq + 1))]
    windows = torch.tensor(text).view(a.batch, a.seq + 1)
    batch = [windows[:, :-1].contiguous(), windows[:, 1:].contiguous()]
    if crossed:
        # The source is the text backwards.
        batch.append(windows[:, :-1].flip(1).contiguous())

    def step():
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            loss = model(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item(), time.perf_counter() - start

    for _ in sys.stdin:
        loss, seconds = step()
        print(f"{seconds} {loss}", flush=True)
    status = Path("/proc/self/status").read_text()
    print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1], flush=True)


if __name__ == "__main__":
    main()
