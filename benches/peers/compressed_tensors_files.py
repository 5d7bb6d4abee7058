"""Quantised matrices as compressed-tensors stores them: the test data of `crates/compress`.

Writes `pack_quantized.safetensors` (per case: the weight, what the package packs, and what it unpacks) and
`quantization_config.json` into a directory.

    python compressed_tensors_files.py ../../crates/compress/tests/data

Needs: compressed-tensors 0.20, torch, safetensors.
"""

import json
import sys
from pathlib import Path

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from compressed_tensors.quantization.utils.helpers import calculate_qparams
from safetensors.torch import save_file

# bits, group, symmetric, outputs, inputs. The outputs leave the last words of packed zero points partly empty; they
# are more than eight because version 0.20 cannot unpack 4-bit zero points that fit in one word.
CASES = [
    (4, 32, True, 5, 96),
    (4, 128, True, 3, 256),
    (4, 64, False, 9, 128),
    (4, 32, False, 9, 64),
    (8, 64, True, 5, 128),
    (8, 128, False, 3, 256),
    (8, 32, False, 5, 96),
]


def args_of(bits, group, symmetric):
    return QuantizationArgs(
        num_bits=bits, type="int", strategy="group", group_size=group, symmetric=symmetric,
        dynamic=False, scale_dtype=torch.float16,
    )


def main():
    out = Path(sys.argv[1])
    torch.manual_seed(1)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    tensors = {}
    for bits, group, symmetric, outputs, inputs in CASES:
        args = args_of(bits, group, symmetric)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        weight = torch.randn(outputs, inputs) * torch.rand(outputs, 1) + 0.1 * torch.randn(outputs, 1)
        grouped = weight.unflatten(-1, (-1, group))
        scale, zero_point = calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)
        state = {"weight": weight, "weight_scale": scale}
        if not symmetric:
            state["weight_zero_point"] = zero_point
        state = compressor.compress(state, scheme)
        state["weight_scale"] = state["weight_scale"].to(torch.float16)
        # In f32, so that the products of codes and scales are exact.
        wide = dict(state, weight_scale=state["weight_scale"].float())
        unpacked = compressor.decompress(wide, scheme)["weight"]
        name = f"b{bits}g{group}{'s' if symmetric else 'a'}"
        for key, value in dict(state, weight=weight, unpacked=unpacked).items():
            tensors[f"{name}.{key}"] = value.contiguous()
    save_file(tensors, out / "pack_quantized.safetensors")

    configs = {}
    for bits, group, symmetric in [(4, 128, True), (8, 32, False)]:
        args = QuantizationArgs(
            num_bits=bits, type="int", strategy="group", group_size=group, symmetric=symmetric, dynamic=False
        )
        config = QuantizationConfig(
            config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=args)},
            format="pack-quantized", quantization_status="compressed", ignore=["lm_head"],
        )
        configs[f"b{bits}g{group}{'s' if symmetric else 'a'}"] = json.loads(config.model_dump_json())
    (out / "quantization_config.json").write_text(json.dumps(configs, indent=1) + "\n")


if __name__ == "__main__":
    main()
