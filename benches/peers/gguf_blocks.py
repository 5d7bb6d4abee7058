"""Makes crates/gguf/tests/data/blocks.gguf: blocks and their values by gguf-py and by ggml's own library.

    pip install gguf numpy
    npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
    python benches/peers/gguf_blocks.py --ggml node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so

For each format, tensor FORMAT is random blocks and FORMAT.values what ggml dequantises them to; gguf-py must agree.
For Q8_0 and Q4_0, FORMAT.input is values, many of them halfway between two integers, and FORMAT.quantised is what
ggml's reference functions make of them. The file itself is written by gguf-py.
"""

import argparse
import ctypes
from pathlib import Path

import gguf
import numpy as np

OUT = Path(__file__).parents[2] / "crates/gguf/tests/data/blocks.gguf"
# Format: elements and bytes of a block, where the half-precision scales are, blocks in the file.
FORMATS = {
    "Q8_0": (32, 34, [0], 24),
    "Q4_0": (32, 18, [0], 24),
    "Q4_K": (256, 144, [0, 2], 10),
    "Q6_K": (256, 210, [208], 8),
}


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def dequantised(ggml, name, blocks, elements):
    values = np.zeros(elements, np.float32)
    getattr(ggml, f"dequantize_row_{name[:-1].lower() + name[-1]}")(pointer(blocks), pointer(values), ctypes.c_int64(elements))
    return values


def quantised(ggml, name, values, size):
    blocks = np.zeros(size, np.uint8)
    getattr(ggml, f"quantize_row_{name.lower()}_ref")(pointer(values), pointer(blocks), ctypes.c_int64(values.size))
    return blocks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ggml", required=True, help="libggml-base.so")
    ggml = ctypes.CDLL(parser.parse_args().ggml)
    random = np.random.default_rng(1)
    out = gguf.GGUFWriter(OUT, "blocks")
    for name, (block, size, scales, count) in FORMATS.items():
        kind = gguf.GGMLQuantizationType[name]
        blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
        for at in scales:
            # Finite ones of many magnitudes and both signs, with zero and a subnormal one.
            halves = (random.normal(size=count) * 10.0 ** random.integers(-6, 4, count)).astype(np.float16)
            halves[:2] = [0, 3e-7]
            blocks[:, at : at + 2] = halves.view(np.uint8).reshape(count, 2)
        values = dequantised(ggml, name, blocks, count * block)
        assert np.array_equal(values, gguf.dequantize(blocks.reshape(-1), kind)), name
        out.add_tensor(name, blocks.reshape(1, -1), raw_dtype=kind)
        out.add_tensor(f"{name}.values", values.reshape(1, -1))
        if name in ("Q8_0", "Q4_0"):
            given = random.normal(size=(count, block)).astype(np.float32)
            steps = 127 if name == "Q8_0" else 8
            # Scales that are powers of two, so that half of the values are halfway between two integers.
            ties = np.floor(random.uniform(-2 * steps, 2 * steps, (count // 2, block))) / 2
            ties[:, random.integers(block)] = steps * random.choice([-1, 1], count // 2)
            given[::2] = ties * 2.0 ** random.integers(-8, 8, (count // 2, 1))
            given[1] = 0
            given[3] *= 1e-12
            given = given.reshape(-1)
            result = quantised(ggml, name, given, count * size)
            out.add_tensor(f"{name}.input", given.reshape(1, -1))
            out.add_tensor(f"{name}.quantised", result.reshape(1, -1), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    print(f"{OUT}: {OUT.stat().st_size} bytes")


main()
