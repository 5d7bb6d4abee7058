"""Matrix products in PyTorch, timed on request: the peer of `src/bin/products.rs`.

Reads lines `TOKENS D_IN D_OUT forward|backward f32|bf16 TIMES` and prints the mean seconds of y = x W, or of the
pair dx = dy W^T and dW = x^T dy.

    python torch_products.py --threads 2
    python torch_products.py --versions

Needs: torch 2.4 or later.
"""

import argparse
import functools
import platform
import sys
import time

import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@functools.lru_cache(maxsize=1)
def operands(tokens, d_in, d_out, dtype):
    shapes = (tokens, d_in), (d_in, d_out), (tokens, d_out)
    return [torch.rand(shape).sub(0.5).to(DTYPES[dtype]) for shape in shapes]


def main():
    if sys.argv[1:] == ["--versions"]:
        print(f"torch {torch.__version__}, Python {platform.python_version()}")
        return
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--threads", type=int, required=True)
    torch.set_num_threads(p.parse_args().threads)
    for line in sys.stdin:
        tokens, d_in, d_out, kind, dtype, times = line.split()
        x, w, dy = operands(int(tokens), int(d_in), int(d_out), dtype)
        start = time.perf_counter()
        for _ in range(int(times)):
            if kind == "forward":
                x @ w
            else:
                dy @ w.t(), x.t() @ dy
        print((time.perf_counter() - start) / int(times), flush=True)


if __name__ == "__main__":
    main()
