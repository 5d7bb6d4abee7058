"""Makes three small random LLaMAs, whose tokenizers treat BOS differently, and writes what the harness's HFLM (0.4.13)
answers to a few requests: expected.json in each.

    pip install lm_eval==0.4.13 'transformers<5' torch safetensors
    python crates/eval/tests/models/expected.py

bos: the post-processor puts BOS before a text. plain: there is no BOS. llama: LLaMA's tokenizer class, which adds BOS
whatever the post-processor says.
"""

import json
import sys
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizerFast, PreTrainedTokenizerFast

HERE = Path(__file__).parent
TEXT = ["The river runs by the old mill, and the miller's daughter counts the sacks.\n\n",
        "Question: Which stone is the oldest?\nAnswer: the grey one, 3,000 years.\n\n",
        "naïve Zoë — 日本 \"quoted\" (so-called) it's 1234567 end.  Two  spaces\tand a tab\n"]
MAX_LENGTH = 32

PAIRS = [
    ("The river", " runs"), ("The river ", "runs"), ("The river \n ", " runs by"), ("", "The river"), ("", " mill"),
    ("Question: Which stone is the oldest?\nAnswer:", " the grey one"),
    ("Question: Which stone is the oldest?\nAnswer:", " the grey two"),
    ("Question: Which stone is the oldest?\nAnswer:", " the"),
    ("Question: Which stone is the oldest?\nAnswer:", " a"),
    (TEXT[0] * 3, " The river"), ("日本", "日本"), ("it", "'s"), ("<s>The river", " runs"), ("<|begin|>The", " mill"),
    ("The mill<|end|>", "The river"), ("x" * 40, "y" * 25), ("\n", "The"),
]
TEXTS = [TEXT[0], "", "a", "".join(TEXT), TEXT[2] * 4, "<s>The river"]
GENERATIONS = [("The river", ["\n\n"], 12), ("Question:", ["e"], 20), ("".join(TEXT), [], 5)]


def byte_level(bos):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>"] if bos else ["<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=290, special_tokens=special, initial_alphabet=alphabet))
    if not bos:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A $B:1", special_tokens=[("<|begin|>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>")


def llama():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=340, special_tokens=special))
    return LlamaTokenizerFast(tokenizer_object=tokenizer)


def lines(entries):
    """A JSON object with a line for each entry."""
    text = ",\n".join(f"{json.dumps(str(key))}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items())
    return "{\n" + text + "\n}\n"


def main():
    for name, tokenizer in {"bos": byte_level(True), "plain": byte_level(False), "llama": llama()}.items():
        folder = HERE / name
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=len(tokenizer) + 2, hidden_size=16, intermediate_size=28, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=MAX_LENGTH, initializer_range=0.4,
            tie_word_embeddings=name != "bos", bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "generation_config.json").unlink()
        lm = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3)
        ask = lambda kind, arguments: [Instance(kind, {}, a, 0) for a in arguments]
        # White space alone is no context: without BOS nothing is left of it, and the harness gives up.
        requests = [pair for pair in PAIRS if pair[0].strip() or pair[0] == "" or tokenizer.bos_token]
        encoded = [([lm.prefix_token_id], lm.tok_encode(b, add_special_tokens=False)) if a == "" else lm._encode_pair(a, b)
                   for a, b in requests]
        generations = [(a, {"until": list(until), "max_gen_toks": n}) for a, until, n in GENERATIONS]
        expected = {
            "pairs": [[a, b, *tokens, *answer] for (a, b), tokens, answer in
                      zip(requests, encoded, lm.loglikelihood(ask("loglikelihood", requests)))],
            "rolling": [[text, lm.tok_encode(text), value] for text, value in
                        zip(TEXTS, lm.loglikelihood_rolling(ask("loglikelihood_rolling", [(t,) for t in TEXTS])))],
            "generations": [[a, until, n, text] for (a, until, n), text in
                            zip(GENERATIONS, lm.generate_until(ask("generate_until", generations)))],
        }
        (folder / "expected.json").write_text(lines(expected))


if __name__ == "__main__":
    sys.exit(main())
