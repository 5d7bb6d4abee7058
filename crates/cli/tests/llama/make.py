"""Writes the two small LLaMA directories beside this file, and what transformers makes of them.

    pip install torch==2.4.1 transformers==4.46.3 numpy && python make.py

Random weights. `sentence-piece` is tied, with a tokenizer of LLaMA 2's kind; `byte-level` is untied
and sharded, with LLaMA 3's kind of tokenizer and of rotary frequencies. Each has several tokens that
end a text, in generation_config.json alone. `expected.json` has greedy continuations, and logits.
"""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM,
                          LlamaTokenizerFast, PreTrainedTokenizerFast)

HERE = Path(__file__).parent
TEXT = ["Once upon a time there was a little girl. She loved to play in the park.\n",
        "Tim went to the shop with mom. \"Look!\" said Tim. They were happy.\n", "naïve café 🦀\n"]
PROMPTS = ["Once upon a time", "", "Tim", "  two spaces", "日本 🦀", "a line\nanother line"]


def sentence_piece():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=330, special_tokens=tokens, limit_alphabet=40, show_progress=False))
    written = json.loads(tokenizer.to_str())
    # Bytes are ordinary tokens; the trainer only knows how to reserve special ones.
    written["added_tokens"] = [token for token in written["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|begin_of_text|>", "<|end_of_text|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)])])
    return tokenizer


def write(name, tokenizer, wrap, bytes_at, shard, **config):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    torch.manual_seed(2)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, initializer_range=0.2, **config))
    for name_of, p in model.named_parameters():
        torch.nn.init.normal_(p, 1.0, 0.2) if p.dim() == 1 else torch.nn.init.normal_(p, 0.0, 0.2)
        if name_of in ("model.embed_tokens.weight", "lm_head.weight"):
            # Single bytes are never chosen: few sequences of them are text.
            p.data[bytes_at : bytes_at + 256] *= 0.01
    model.to(torch.bfloat16).save_pretrained(path, max_shard_size=shard)
    tokenizer.save(str(path / "raw.json"))
    wrap(path).save_pretrained(path)
    (path / "raw.json").unlink()
    (path / "special_tokens_map.json").unlink()

    model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    start = tokenizer(PROMPTS[0]).input_ids
    first = model.generate(torch.tensor([start]), max_new_tokens=40, do_sample=False)[0, len(start):].tolist()
    # The token that comes first as late as any in the first text ends it, and perhaps others.
    late = max(first, key=first.index)
    generation = json.loads((path / "generation_config.json").read_text())
    generation["eos_token_id"] = [config["eos_token_id"], late]
    (path / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32).eval()

    cases = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt).input_ids])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)[0]
        new = out[ids.shape[1]:].tolist()
        ended = new[-1] in generation["eos_token_id"]
        # The token that ends a text is not part of it; a decoder of the whole keeps what precedes.
        shown = out[:-1] if ended else out
        text = tokenizer.decode(shown, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        cases.append({"prompt": prompt, "text": text, "tokens": len(new) - ended, "ended": ended})
    ids = [i * 37 % model.config.vocab_size for i in range(150)]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1].tolist()
    expected = {"greedy": cases, "ids": ids, "last_logits": logits}
    (path / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    write("sentence-piece", sentence_piece(), lambda path: LlamaTokenizerFast(
        tokenizer_file=str(path / "raw.json"), legacy=True), 3, "5GB", max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
    write("byte-level", byte_level(), lambda path: PreTrainedTokenizerFast(
        tokenizer_file=str(path / "raw.json"), bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"),
        2, "40KB", max_position_embeddings=512, rope_theta=500000.0, bos_token_id=0, eos_token_id=1,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 32})
