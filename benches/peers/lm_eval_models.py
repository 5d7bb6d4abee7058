"""Language models of five solvers in plain PyTorch, written from docs/method.md, for the comparison
of `lm_eval_compare.py`. Weights by name from a model directory; nothing is shared with the Rust code.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class LanguageModel:
    """config.json and *.safetensors of a directory; `logits(ids)` maps [batch, seq] to [batch, seq, vocab]."""

    def __init__(self, directory):
        directory = Path(directory)
        self.config = json.loads((directory / "config.json").read_text())
        self.weights = {}
        for file in sorted(directory.glob("*.safetensors")):
            self.weights |= {name: value.float() for name, value in load_file(file).items()}
        self.solver = getattr(self, self.config.get("solver", "explicit_euler"))
        iterations = self.config.get("iterations", 0)
        n_layers = self.config["num_hidden_layers"]
        self.iterations = [iterations] * n_layers if isinstance(iterations, int) else iterations

    def __getitem__(self, name):
        return self.weights[name]

    def parameter(self, name):
        return self.weights["model." + name]

    def rms_norm(self, y, name):
        eps = self.config.get("rms_norm_eps", 1e-6)
        return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps) * self.parameter(name + ".weight")

    def layer_norm(self, y, name):
        weight, bias = self.parameter(name + ".weight"), self.parameter(name + ".bias")
        return F.layer_norm(y, weight.shape, weight, bias, 1e-5)

    def attention(self, x, layer):
        batch, seq, d_model = x.shape
        n_heads = self.config["num_attention_heads"]
        n_kv_heads = self.config.get("num_key_value_heads") or n_heads
        head_dim = d_model // n_heads
        project = lambda name, heads: (
            (x @ self.parameter(f"layers.{layer}.self_attn.{name}_proj.weight").T)
            .view(batch, seq, heads, head_dim)
            .transpose(1, 2)
        )
        q, k, v = project("q", n_heads), project("k", n_kv_heads), project("v", n_kv_heads)
        rope = self.config.get("rope_theta") or (self.config.get("rope_parameters") or {}).get("rope_theta", 1e4)
        frequency = rope ** (-torch.arange(0, head_dim, 2).float() / head_dim)
        angle = torch.outer(torch.arange(seq).float(), frequency).repeat(1, 2)
        swap = lambda y: torch.cat([-y[..., head_dim // 2 :], y[..., : head_dim // 2]], -1)
        q, k = (y * angle.cos() + swap(y) * angle.sin() for y in (q, k))
        k, v = (y.repeat_interleave(n_heads // n_kv_heads, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(batch, seq, d_model)
        return y @ self.parameter(f"layers.{layer}.self_attn.o_proj.weight").T

    def block(self, y, layer):
        """G(y)."""
        u = y + self.attention(self.rms_norm(y, f"layers.{layer}.input_layernorm"), layer)
        x = self.rms_norm(u, f"layers.{layer}.post_attention_layernorm")
        gate, up, down = (self.parameter(f"layers.{layer}.mlp.{name}_proj.weight") for name in ("gate", "up", "down"))
        return u + (F.silu(x @ gate.T) * (x @ up.T)) @ down.T

    def history(self, kind, layer, states):
        row = self.parameter(f"history.{kind}")[layer + 1]
        return sum(row[k] * state for k, state in enumerate(states))

    def predicted(self, y, layer):
        return self.layer_norm(y, f"history.rouge_predictions_norm.{layer}")

    def corrected(self, states, layer):
        z = self.history("weight", layer, states)
        return self.layer_norm(self.block(z, layer), f"history.layer_norms.{layer}")

    def layers(self):
        return range(self.config["num_hidden_layers"])

    def explicit_euler(self, y):
        for layer in self.layers():
            y = self.block(y, layer)
        return y

    def runge_kutta(self, y):
        for layer in self.layers():
            f = lambda z: self.block(z, layer) - z
            k1 = f(y)
            if self.config["predictor_order"] == 2:
                y = y + 0.5 * k1 + 0.5 * f(y + k1)
            else:
                k2 = f(y + 0.5 * k1)
                k3 = f(y + 0.5 * k2)
                k4 = f(y + k3)
                y = y + (k1 + 2 * k2 + 2 * k3 + k4) / 6
        return y

    def adams_bashforth(self, y):
        before = None
        for layer in self.layers():
            f = lambda z: self.block(z, layer) - z
            slope = f(y)
            if before is not None:
                y = y + 1.5 * slope - 0.5 * before
            elif self.config.get("first_step") == "heun":
                y = y + 0.5 * slope + 0.5 * f(y + slope)
            else:
                y = y + slope
            before = slope
        return y

    def implicit_euler(self, y):
        for layer in self.layers():
            z = self.block(y, layer)
            for _ in range(self.iterations[layer]):
                z = y + self.block(z, layer) - z
            y = z
        return y

    def iterative_implicit_euler(self, y):
        states = [y]
        for layer in self.layers():
            states.append(self.predicted(self.block(y, layer), layer))
            for _ in range(self.iterations[layer]):
                states[-1] = self.corrected(states, layer)
            y = self.history("weight_c", layer, states)
        return y

    def predictor_corrector(self, y):
        states, order, alpha = [y], self.config["predictor_order"], self.parameter("alpha")
        for layer in self.layers():
            stages, z = [], y
            for j in range(order):
                stages.append(self.layer_norm(self.block(z, layer), f"RK_norm.{j}"))
                z = y + stages[-1] * (0.5 if order == 4 and j < 2 else 1.0)
            guess = y + sum(alpha * (1 - alpha) ** (order - 1 - j) * k for j, k in enumerate(stages))
            states.append(self.predicted(guess, layer))
            states[-1] = self.corrected(states, layer)
            y = self.history("weight_c", layer, states)
        return y

    @torch.no_grad()
    def logits(self, ids):
        embedding = self.parameter("embed_tokens.weight")
        head = self.weights.get("lm_head.weight", embedding)
        return self.rms_norm(self.solver(F.embedding(ids, embedding)), "norm") @ head.T
