"""GPTQ, SparseGPT and Wanda written from the papers, in float64: the test data of `crates/compress`.

The inverse of the second moments is updated by eliminating one input after the other (equations 1 and 2 of the GPTQ
paper), without Cholesky factors, blocks of updates or float32.

    python compress_reference.py ../../crates/compress/tests/data/reference.safetensors

Needs: numpy, safetensors.
"""

import sys

import numpy as np
from safetensors.numpy import save_file

D_OUT, D_IN, TOKENS = 6, 160, 48
DAMPING = 0.01
BLOCK = 128  # inputs whose mask SparseGPT chooses together


def grid_of(w, bits, symmetric):
    """Scale, rounded to float16, and zero point of a group."""
    low, high = min(w.min(), 0.0), max(w.max(), 0.0)
    steps = 2**bits - 1
    if symmetric:
        scale = float(np.float16(max(high, -low) / (steps / 2)))
        return scale, 2 ** (bits - 1)
    scale = float(np.float16((high - low) / steps))
    return scale, int(np.clip(np.rint(-low / scale), 0, steps))


def damped(x):
    h = x.T @ x / len(x)
    dead = np.diag(h) == 0
    h[dead, dead] = 1.0
    return h + DAMPING * np.diag(h).mean() * np.eye(len(h)), dead


def eliminate(w, x, order, decide):
    """Replaces w[:, i] by decide(i, w, pivots) in this order; later inputs compensate."""
    h, dead = damped(x)
    w = w.copy()
    w[:, dead] = 0.0
    inverse, pivots = np.linalg.inv(h), np.zeros(len(h))
    for i in order:
        pivots[i] = inverse[i, i]
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    inverse = np.linalg.inv(h)
    for i in order:
        q = decide(i, w, pivots)
        w -= np.outer((w[:, i] - q) / inverse[i, i], inverse[i])
        w[:, i] = q
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        # Exactly zero from here on, so that decided weights stay.
        inverse[i], inverse[:, i] = 0.0, 0.0
    return w


def gptq(w, x, bits, group, symmetric, by_activation):
    squares = (x**2).mean(0)
    order = np.argsort(-squares, kind="stable") if by_activation else np.arange(D_IN)
    codes = np.zeros(w.shape, np.uint8)
    scales, zeros = (np.zeros((D_OUT, D_IN // group)) for _ in range(2))
    start = w.copy()
    start[:, squares == 0] = 0.0

    def choose(weights, g):
        for row in range(D_OUT):
            scales[row, g], zeros[row, g] = grid_of(weights[row, g * group : (g + 1) * group], bits, symmetric)

    if by_activation:
        for g in range(D_IN // group):
            choose(start, g)

    def decide(i, w, _):
        g = i // group
        if not by_activation and i % group == 0:
            choose(w, g)
        codes[:, i] = np.clip(np.rint(w[:, i] / scales[:, g] + zeros[:, g]), 0, 2**bits - 1)
        return (codes[:, i] - zeros[:, g]) * scales[:, g]

    eliminate(w, x, order, decide)
    return codes, scales.astype(np.float16), zeros.astype(np.uint8)


def sparse_gpt(w, x, fraction=None, n=None, m=None):
    mask = np.zeros(w.shape, bool)

    def decide(i, w, pivots):
        if fraction and i % BLOCK == 0:
            block = slice(i, min(i + BLOCK, D_IN))
            scores = w[:, block] ** 2 / pivots[block]
            count = round(scores.size * fraction)
            chosen = np.zeros(scores.size, bool)
            chosen[np.argsort(scores, axis=None, kind="stable")[:count]] = True
            mask[:, block] = chosen.reshape(scores.shape)
        if n and i % m == 0:
            scores = w[:, i : i + m] ** 2 / pivots[i : i + m]
            for row in range(D_OUT):
                mask[row, i + np.argsort(scores[row], kind="stable")[:n]] = True
        return np.where(mask[:, i], 0.0, w[:, i])

    return eliminate(w, x, np.arange(D_IN), decide)


def wanda(w, x, count, width):
    """Zeros the `count` lowest scores of every `width` neighbouring weights of a row."""
    scores = np.abs(w) * np.sqrt((x**2).mean(0))
    out = w.copy()
    for row in range(D_OUT):
        for at in range(0, D_IN, width):
            out[row, at + np.argsort(scores[row, at : at + width], kind="stable")[:count]] = 0.0
    return out


def main():
    rng = np.random.default_rng(4)
    sources = rng.standard_normal((TOKENS, 40))
    x = sources @ rng.standard_normal((40, D_IN)) * rng.uniform(0.05, 1.0, D_IN) / 6
    x += 0.1 * rng.standard_normal(x.shape)
    x[:, 5] = 0.0
    x = x.astype(np.float16)
    w = (rng.standard_normal((D_OUT, D_IN)) * 0.05).astype(np.float32)
    wide_w, wide_x = w.astype(np.float64), x.astype(np.float64)
    tensors = {"x": x, "w": w}
    for name, options in {
        "gptq.b4g32s": (4, 32, True, False),
        "gptq.b4g32a": (4, 32, False, False),
        "gptq.b4g32a-activation": (4, 32, False, True),
        "gptq.b8g32s": (8, 32, True, False),
    }.items():
        codes, scales, zeros = gptq(wide_w, wide_x, *options)
        tensors |= {f"{name}.codes": codes, f"{name}.scales": scales, f"{name}.zeros": zeros}
    for name, pruned in {
        "sparse_gpt.half": sparse_gpt(wide_w, wide_x, fraction=0.5),
        "sparse_gpt.2of4": sparse_gpt(wide_w, wide_x, n=2, m=4),
        "wanda.half": wanda(wide_w, wide_x, D_IN // 2, D_IN),
        "wanda.2of4": wanda(wide_w, wide_x, 2, 4),
    }.items():
        tensors[name] = pruned.astype(np.float32)
    save_file(tensors, sys.argv[1])


if __name__ == "__main__":
    main()
