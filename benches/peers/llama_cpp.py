"""Holds exported GGUF files against llama.cpp, and imported ones against transformers.

    pip install torch transformers tokenizers numpy gguf
    npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
    cargo build -p iiet-gguf --examples
    python benches/peers/llama_cpp.py --examples target/debug/examples --modules node_modules MODEL_DIRECTORY..
    python benches/peers/llama_cpp.py .. --random TOKENIZER.json              # a LLaMA of random weights
    python benches/peers/llama_cpp.py .. --random TOKENIZER.json --steps 300  # trained a little on this repository

For each directory and each type of --types:

    blocks   every quantised tensor equals, byte for byte, what ggml's own reference function makes of the F32 file's
    tokens   of some hundred odd texts, of all characters, and of this repository's files: those of tokenizers
    greedy   64 tokens after several prompts: those of transformers on the directory that the file is imported to;
             where one differs, the gap between the two best logits of transformers decides whether it is a tie
    plain    the same for llama.cpp on the imported directory as an F32 file: the dequantised weights

llama.cpp rounds activations to 8 bits in products with Q8_0 and Q4_0 matrices, and to the matrix's type with F16 and
BF16 ones, and transformers does not, so there larger gaps count as ties, and `plain` says that nothing else differs.
Ends with 1 if anything differs that is not a tie.
"""

import argparse
import ctypes
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import tokenizers
import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
HERE = Path(__file__).parent
# Gaps between logits that are ties, in multiples of the logits' standard deviation.
TIES = {"F32": 1e-4, "F16": 0.02, "BF16": 0.1, "Q8_0": 0.3, "Q4_0": 0.3}
ODD = [
    "", " ", "  ", "   ", "\n", "\r\n", "\n\n \n", " \n", "\t\tx", "a\u0000b", "can't CAN'T 'S 's 'Ll 'rE ''d x''s",
    "don't you'll we've I'm he'd they're", "'", "''", "' s", "1", "12", "123", "1234", "1234567890 3.14159", "x=1,y=22;",
    "<|endoftext|>", "<|endoftext|><|endoftext|>", "<s></s>", "日本語のテキスト", "naïve façade", "🦀🦀🦀", "👩‍👩‍👧‍👦", "e\u0301 é",
    "\u00a0\u00a0x", "\u3000\u3000字", "a\u200bb", "\ufeffx", "¿Qué? ¡Sí!", "ß ẞ ŉ ǰ ΐ", "Ⅷ ½ ² ٣ ४", "\u2028x\u2029", "\x85y",
    "fn main() {\n    println!(\"{}\", 1_000);\n}\n", "//// ---- ====", "a.b.c::d->e", "    \n    x\n\n\n", "\x1b[0m", "\U0010ffff",
]


def characters():
    """All characters, a hundred in a text, in words and between them."""
    all_of_them = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    known = [c for c in all_of_them if c.isprintable() or c.isspace() or ord(c) < 0x300]
    return ["".join(f"{c} a{c}{c}1" for c in known[i : i + 100]) for i in range(0, len(known), 100)]


def mixtures(count, seed):
    pieces = [" ", "  ", "\n", "\r", "\t", "'s", "'", "'LL", "a", "Word", "12", "3456", "(", "{", "->", "é", "日", "🦀", "\u00a0", ".", "_"]
    of = random.Random(seed)
    return ["".join(of.choice(pieces) for _ in range(of.randint(1, 40))) for _ in range(count)]


def files():
    paths = sorted((HERE.parents[1] / "crates").glob("*/src/*.rs"))[:60]
    return [path.read_text() for path in paths]


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def ask(modules, model, request):
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "question.json"), Path(folder, "answer.json")
        question.write_text(json.dumps(request))
        run("node", HERE / "llama_cpp.mjs", modules / "node-llama-cpp", model, question, answer)
        return json.loads(answer.read_text())


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def same_blocks(ggml, plain, quantised, kind):
    """The number of quantised tensors, each of which must equal ggml's own."""
    given, count = tensors(plain), 0
    for name, tensor in tensors(quantised).items():
        if tensor.tensor_type.name != kind:
            assert tensor.tensor_type.name == "F32" and np.array_equal(tensor.data, given[name].data), name
            continue
        values = np.ascontiguousarray(given[name].data, np.float32).reshape(-1)
        expected = np.zeros(tensor.n_bytes, np.uint8)
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (values, expected)]
        getattr(ggml, f"quantize_row_{kind.lower()}_ref")(*pointers, ctypes.c_int64(values.size))
        assert np.array_equal(np.asarray(tensor.data).view(np.uint8).reshape(-1), expected), name
        count += 1
    return count


@torch.no_grad()
def compare_greedy(model, prompts, greedy, tie):
    """Tokens in common, and for each prompt that differs the place and the gap. Follows llama.cpp's tokens."""
    equal, ties, faults, total = 0, [], [], 0
    for number, (prompt, tokens) in enumerate(zip(prompts, greedy)):
        logits = model(torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :]
        for place, (row, token) in enumerate(zip(logits, tokens)):
            total += 1
            if row.argmax() == token:
                equal += 1
                continue
            gap = ((row.max() - row[token]) / row.std()).item()
            (ties if gap < tie else faults).append((number, place, round(gap, 5)))
    report = {"equal": f"{equal} of {total}"}
    if ties:
        report |= {"ties": len(ties), "largest gap": max(gap for _, _, gap in ties)}
    if faults:
        report["faults"] = faults
    return report


def random_model(tokenizer, steps, folder):
    """A LLaMA with grouped queries and LLaMA 3's rotary frequencies whose greedy text does not repeat itself."""
    ids = tokenizers.Tokenizer.from_file(str(tokenizer))
    config = transformers.LlamaConfig(
        vocab_size=ids.get_vocab_size(), hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.08, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=0, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 128})
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    data = torch.tensor(ids.encode("".join(files()), add_special_tokens=False).ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        starts = torch.randint(len(data) - 128, (8,)).tolist()
        batch = torch.stack([data[start : start + 128] for start in starts])
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {loss.item():.2f} nats per token", flush=True)
    model.save_pretrained(folder)
    Path(folder, "tokenizer.json").write_bytes(Path(tokenizer).read_bytes())


def check(arguments, directory, kind, folder):
    file, plain, imported = (Path(folder, name) for name in (f"{kind}.gguf", "F32.gguf", f"{kind}-back"))
    exported = subprocess.run([arguments.examples / "export", directory, file, kind], capture_output=True, text=True)
    if exported.returncode != 0:
        print(f"{directory} {kind}: refused: {exported.stderr.strip()}", flush=True)
        return "RowWidth" in exported.stderr
    run(arguments.examples / "import", file, imported)
    report = {}
    if kind in ("Q8_0", "Q4_0"):
        run(arguments.examples / "export", directory, plain, "F32")
        libraries = arguments.modules / "@node-llama-cpp/linux-x64/bins/linux-x64"
        report["blocks"] = same_blocks(ctypes.CDLL(libraries / "libggml-base.so"), plain, file, kind)

    ids = tokenizers.Tokenizer.from_file(str(Path(directory, "tokenizer.json")))
    ids.encode_special_tokens = True
    back = tokenizers.Tokenizer.from_file(str(imported / "tokenizer.json"))
    back.encode_special_tokens = True
    texts = ODD + mixtures(300, 1) + characters() + files()
    encode = lambda of, text: of.encode(text, add_special_tokens=False).ids
    expected = [encode(ids, text) for text in texts]
    assert expected == [encode(back, text) for text in texts], "imported tokenizer"
    before = ids.encode("").ids
    assert before == back.encode("").ids, "imported template"
    prompts = [before + encode(ids, text)[:24] for text in files()[:5] + ["fn main() {", "The", "// Copyright"]]
    answer = ask(arguments.modules, file, {"texts": texts, "prompts": prompts, "count": 64, "threads": arguments.threads})
    wrong = [text for text, a, b in zip(texts, expected, answer["tokens"]) if a != b]
    assert answer["adds_bos"] == bool(before), "BOS"
    report["tokens"] = f"{len(texts) - len(wrong)} of {len(texts)} texts"

    model = transformers.LlamaForCausalLM.from_pretrained(imported, dtype=torch.float32)
    if kind == "F32":
        original = transformers.LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).state_dict()
        assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items()), "imported weights"
    report["greedy"] = compare_greedy(model.eval(), prompts, answer["greedy"], TIES[kind])
    faults = "faults" in report["greedy"]
    if kind != "F32":
        run(arguments.examples / "export", imported, plain, "F32")
        dequantised = ask(arguments.modules, plain, {"prompts": prompts, "count": 64, "threads": arguments.threads})
        report["plain"] = compare_greedy(model, prompts, dequantised["greedy"], TIES["F32"])
        faults |= "faults" in report["plain"]
    distinct = np.mean([len(set(tokens)) for tokens in answer["greedy"]])
    report["distinct tokens"] = round(float(distinct), 1)
    report["tokens_per_second"] = round(len(prompts) * 63 / sum(answer["rest_seconds"]))
    print(f"{directory} {kind}: {report}", flush=True)
    for text in wrong[:3]:
        print(f"  other tokens: {text!r:.300}")
    return not wrong and not faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=Path, required=True, help="folder with the built examples export and import")
    parser.add_argument("--modules", type=Path, required=True, help="node_modules")
    parser.add_argument("--random", type=Path, help="tokenizer.json of a LLaMA with random weights")
    parser.add_argument("--steps", type=int, default=0, help="steps that it is trained")
    parser.add_argument("--types", nargs="+", default=["F32", "BF16", "Q8_0", "Q4_0"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("directories", nargs="*")
    arguments = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        directories = list(arguments.directories)
        if arguments.random:
            made = Path(folder, "random", "model")
            random_model(arguments.random, arguments.steps, made)
            directories.append(str(made))
        for number, directory in enumerate(directories):
            for kind in arguments.types:
                place = Path(folder, str(number), kind)
                place.mkdir(parents=True)
                good &= check(arguments, directory, kind, place)
    sys.exit(not good)


main()
