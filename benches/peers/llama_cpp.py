"""Holds exported GGUF files against llama.cpp, and imported ones against transformers.

    pip install torch transformers tokenizers numpy gguf safetensors compressed-tensors
    npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
    cargo build -p iiet-gguf --examples
    python benches/peers/llama_cpp.py --examples target/debug/examples --modules node_modules MODEL_DIRECTORY..
    python benches/peers/llama_cpp.py .. --random TOKENIZER.json              # a LLaMA of random weights
    python benches/peers/llama_cpp.py .. --random TOKENIZER.json --steps 300  # trained a little on this repository

For each directory and each type of --types:

    blocks   every quantised tensor equals, byte for byte, what ggml's own reference function makes of the F32 file's
    tokens   of some hundred odd texts, of all characters, and of this repository's files: those of tokenizers
    packed   the file is imported as packed matrices of 8 or 4 bits whose numbers, computed here, equal those that gguf-py
             computes for the blocks of the file, and exported again it has the same bytes
    greedy   64 tokens after several prompts: those of transformers on the imported directory, in floats;
             where one differs, the gap between the two best logits of transformers decides whether it is a tie
    plain    the same for llama.cpp on an F32 file of this directory: the dequantised weights
    compressed  the model with packed layers and an embedding in floats, exported and imported: its logits in transformers,
             which reads it with compressed-tensors, against those of the directory in floats; the largest difference

A directory that is packed itself, from `iiet quantize` for example, is exported as the type of its blocks instead.

llama.cpp rounds activations to 8 bits in products with Q8_0 and Q4_0 matrices, and to the matrix's type with F16 and
BF16 ones, and transformers does not, so there larger gaps count as ties, and `plain` says that nothing else differs.
Ends with 1 if anything differs that is not a tie.
"""

import argparse
import contextlib
import ctypes
import io
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import safetensors.torch
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


def config(directory):
    return json.loads(Path(directory, "config.json").read_text())


def weights(directory):
    """The tensors of a directory, and the matrices that are packed: names without `.weight`."""
    found = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        found |= safetensors.torch.load_file(path)
    end = ".weight_packed"
    return found, sorted(name.removesuffix(end) for name in found if name.endswith(end))


def as_floats(directory, out, keep=()):
    """The same model in f32, but for the packed matrices in `keep`: scale (code - zero), zero = 128 or 8."""
    found, packed = weights(directory)
    keys = config(directory)
    for name in packed:
        if name in keep:
            continue
        codes, scale, shape = (found.pop(f"{name}.weight_{part}") for part in ("packed", "scale", "shape"))
        codes = codes.numpy().view(np.uint8)
        if codes.shape[1] != shape[1]:
            codes = np.stack([codes & 15, codes >> 4], -1).reshape(*shape.tolist())
            zero = 8
        else:
            zero = 128
        values = (codes.astype(np.float32) - zero).reshape(*scale.shape, -1) * scale.float().numpy()[..., None]
        found[f"{name}.weight"] = torch.from_numpy(values.reshape(*shape.tolist()))
    if not keep:
        keys.pop("quantization_config", None)
    Path(out).mkdir()
    Path(out, "config.json").write_text(json.dumps(keys))
    safetensors.torch.save_file(found, Path(out, "model.safetensors"), {"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if Path(directory, name).exists():
            shutil.copy(Path(directory, name), out)


def half_split(values, heads):
    """Rows in the order of transformers from rows in that of llama.cpp."""
    return values.reshape(heads, -1, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)


def same_numbers(path, floats, kind):
    """The number of tensors of a type in a file; all tensors must have the numbers of a directory in floats."""
    keys, (expected, _), count = config(floats), weights(floats), 0
    inside = {
        "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    outside = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for name, tensor in tensors(path).items():
        part = name.removesuffix(".weight").split(".")
        if part == ["rope_freqs"]:
            continue
        module = outside[part[0]] if len(part) == 1 else f"model.layers.{part[1]}.{inside[part[2]]}"
        values = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        heads = {"attn_q": keys["num_attention_heads"], "attn_k": keys["num_key_value_heads"]}.get(part[-1])
        values = half_split(values, heads) if heads else values
        assert np.array_equal(values, expected.pop(f"{module}.weight").float().numpy()), name
        count += tensor.tensor_type.name == kind
    assert not expected, expected.keys()
    return count


def same_bytes(path, other):
    """Two files must have the same tensors, byte for byte."""
    of_other = tensors(other)
    for name, tensor in tensors(path).items():
        found = of_other.pop(name)
        assert tensor.tensor_type == found.tensor_type and np.array_equal(tensor.data, found.data), name
    assert not of_other, of_other.keys()


def load(directory):
    return transformers.LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@torch.no_grad()
def largest_difference(model, directory, prompt):
    """Between the logits of a model and those of a packed directory."""
    # compressed-tensors shows its progress.
    with contextlib.redirect_stderr(io.StringIO()):
        a, b = (each(torch.tensor([prompt])).logits for each in (model, load(directory)))
    return float(f"{(a - b).abs().max().item():.1e}")


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
    blocks, already = kind in ("Q8_0", "Q4_0"), "quantization_config" in config(directory)
    export, into = arguments.examples / "export", arguments.examples / "import"
    exported = subprocess.run([export, directory, file] + [kind] * (not already), capture_output=True, text=True)
    if exported.returncode != 0:
        print(f"{directory} {kind}: refused: {exported.stderr.strip()}", flush=True)
        return "RowWidth" in exported.stderr
    run(into, file, imported)
    report = {}
    if blocks and not already:
        run(export, directory, plain, "F32")
        libraries = arguments.modules / "@node-llama-cpp/linux-x64/bins/linux-x64"
        report["blocks"] = same_blocks(ctypes.CDLL(libraries / "libggml-base.so"), plain, file, kind)
    floats = Path(folder, f"{kind}-floats") if blocks else imported
    if blocks:
        as_floats(imported, floats)
        report["packed"] = same_numbers(file, floats, kind)
        assert report["packed"] == len(weights(imported)[1]) > 0, "packed matrices"
        again = Path(folder, "again.gguf")
        run(export, imported, again)
        same_bytes(file, again)
    if already:
        original = Path(folder, "original")
        as_floats(directory, original)
        same_numbers(file, original, kind)

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

    model = load(floats)
    if kind == "F32":
        original = load(directory).state_dict()
        assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items()), "imported weights"
    report["greedy"] = compare_greedy(model, prompts, answer["greedy"], TIES[kind])
    faults = "faults" in report["greedy"]
    if kind != "F32":
        run(export, floats, plain, "F32")
        dequantised = ask(arguments.modules, plain, {"prompts": prompts, "count": 64, "threads": arguments.threads})
        report["plain"] = compare_greedy(model, prompts, dequantised["greedy"], TIES["F32"])
        faults |= "faults" in report["plain"]
    if blocks:
        embedding = "model.embed_tokens"
        layers, packed, mixed = (Path(folder, name) for name in ("layers", "packed", "mixed.gguf"))
        as_floats(imported, layers, set(weights(imported)[1]) - {embedding})
        run(export, layers, mixed)
        run(into, mixed, packed)
        assert f"{embedding}.weight" in weights(packed)[0]
        report["compressed"] = largest_difference(model, packed, prompts[0])
        faults |= report["compressed"] > 1e-3
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
            types = arguments.types
            if groups := config(directory).get("quantization_config", {}).get("config_groups"):
                types = [{8: "Q8_0", 4: "Q4_0"}[groups["group_0"]["weights"]["num_bits"]]]
            for kind in types:
                place = Path(folder, str(number), kind)
                place.mkdir(parents=True)
                good &= check(arguments, directory, kind, place)
    sys.exit(not good)


main()
