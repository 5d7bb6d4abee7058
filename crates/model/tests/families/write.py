"""Writes small random models of the families that share LLaMA's layer, and what transformers computes with them.

    pip install torch transformers safetensors
    python crates/model/tests/families/write.py

For each family a directory as `save_pretrained` writes it, and expected.safetensors: input_ids, the logits, and the
gradient of the loss (the mean over tokens of the cross-entropy with the next) with respect to the first layer's key
projection, its bias and the norm of its keys, where there are any. Written with transformers 5.24.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

HERE = Path(__file__).parent
SIZES = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=32, bos_token_id=1, eos_token_id=2, pad_token_id=None)
ROPE = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=16)
FAMILIES = {
    "mistral": MistralForCausalLM(MistralConfig(**SIZES, head_dim=6, sliding_window=None)),
    # A window as long as the context is none.
    "mistral_window": MistralForCausalLM(MistralConfig(**SIZES, sliding_window=32)),
    "qwen2": Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen3": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    "llama_bias": LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, rope_parameters=ROPE)),
}


def main():
    torch.manual_seed(0)
    for name, model in FAMILIES.items():
        for parameter in model.parameters():
            # Biases and gains too, which begin as zeros and ones.
            scale, shift = (0.3, 1.0) if parameter.ndim == 1 and parameter.mean() == 1 else (0.3, 0.0)
            parameter.data.normal_(shift, scale)
        directory = HERE / name
        shutil.rmtree(directory, ignore_errors=True)
        model.save_pretrained(directory)
        (directory / "generation_config.json").unlink(missing_ok=True)
        ids = torch.randint(3, 64, (2, 9))
        logits = model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        attention = model.model.layers[0].self_attn
        tensors = {"input_ids": ids, "logits": logits.detach(), "gradient.k_proj.weight": attention.k_proj.weight.grad}
        if attention.k_proj.bias is not None:
            tensors["gradient.k_proj.bias"] = attention.k_proj.bias.grad
        if hasattr(attention, "k_norm"):
            tensors["gradient.k_norm.weight"] = attention.k_norm.weight.grad
        save_file({key: value.contiguous() for key, value in tensors.items()}, directory / "expected.safetensors")
        print(name, float(loss))


if __name__ == "__main__":
    main()
