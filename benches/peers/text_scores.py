"""Writes what sacreBLEU and rouge-score make of crates/eval/tests/texts/segments.jsonl.

    pip install sacrebleu==2.6.0 rouge-score==0.1.2 numpy
    python benches/peers/text_scores.py              # the expected scores, from the segments there
    python benches/peers/text_scores.py --segments   # new segments first, from this repository's texts

Each line of segments.jsonl has the texts of two systems (`a`, `b`) and three references, and whether the
segment is an odd one. Floats are written in full, so the test compares all bits that Python prints. NumPy
must be 2 or later: the type of a float32 times a Python number has changed with it.
"""

import argparse
import json
import random
import re
from pathlib import Path

import numpy as np
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer, scoring
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest, _bootstrap_resample
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "crates/eval/tests/texts"
KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
METRICS = {"bleu": {}, "chrf": {}, "chrf++": {"word_order": 2}}

ODD = [
    "",
    " ",
    "\t\u00a0\u3000",
    "\x00",
    "\x1c\x1d\x1e\x1f\x85",
    "a",
    "A",
    ".",
    "...",
    ". . .",
    "?!?!",
    "a.b.c.",
    "1,000.50",
    "1,000.50.",
    "$1,000,000 (approx.), -5 °C; 3-4 p.m.",
    "5-6 and 7 - 8, 9–10, 11—12",
    "3.14159, .5, 5., ,5, 5,",
    "0.1.2.3 v1.2.3-rc.4+build-5",
    "don't can't o'clock 'quoted' ''double''",
    "e-mail@example.com, https://example.com/a-b_c?d=e&f=g#h",
    "&quot;quoted&quot; &amp;amp; &lt;b&gt;bold&lt;/b&gt;",
    "&amp;lt; &amp;quot; & &nbsp; &#39; &copy",
    "<skipped>nothing</skipped> <skipped> <SKIPPED>",
    "a line-\nbreak and a\nsecond line-\n",
    "first line\n\nthird line\r\nfourth line\rfifth",
    "  leading and trailing  ",
    "tabs\tand\u00a0no-break\u202fspaces\u2009here\u3000there\u2028and\u2029there",
    "zero\u200bwidth\ufeffmarks\u00adhere",
    "e\u0301 versus \u00e9, A\u030a versus \u00c5 versus \u212b",
    "İstanbul ıI ŞŠ ǅ ﬁ ß ẞ ſ K Å",
    "ΟΔΥΣΣΕΥΣ ὀδυσσεύς Σ ΑΣ",
    "😀😃 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 1️⃣ ✌🏽",
    "😀",
    "\U0010ffff\U0010fffe\ue000\uffff",
    "他说：“你好，世界！”然后离开了。",
    "他说你好世界然后就离开了",
    "東京は日本の首都です。人口は約1,400万人。",
    "서울은 대한민국의 수도이며, 인구는 약 940만 명이다.",
    "سافر الوزير إلى القاهرة يوم الاثنين، ثم عاد.",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Der Übersetzer prüft die Straße; 3,5 % der Fälle - nicht mehr - bleiben.",
    "L'été dernier, j'ai vu « l'œuvre » d'Ève à Nîmes !",
    "¿Dónde está el niño? ¡Allí, señor!",
    "ALL CAPITALS ARE NOT ALL LOWER",
    "all capitals are not all lower",
    "the the the the the the the",
    "the cat the cat the cat the",
    "running runs ran runner easily fairly flies dying news innings skies proceeded",
    "relational conditional rational valenci hesitanci digitizer radicalli geologically theology",
    "yyyy yyyyed syzygy sky skies enjoy enjoying controlled controlling rolled",
    "{[(<>)]} ~`!@#$%^&*_+-=|\\:;\"'?/.,",
    "(hi) \"hi\" 'hi' ,hi, (hi ((hi)) hi... ...hi -hi- \u201chi\u201d",
    "x" * 300,
    "ab" * 200,
    "a b " * 150,
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
    "fn main() { println!(\"{}\", x[0] & 0xff); } // comment",
    "SELECT * FROM t WHERE a <= 3.5 AND b != 'x';",
    "\\n is not a newline, %s is not a value",
]

OTHER_LANGUAGES = [
    ("Die Kommission hat den Vorschlag am Dienstag angenommen.", "Am Dienstag nahm die Kommission den Vorschlag an."),
    ("Wir müssen die Größe der Datei vor dem Öffnen prüfen.", "Vor dem Öffnen muss man die Dateigröße prüfen."),
    ("Le rapport sera publié d'ici la fin de l'année.", "Le rapport paraîtra avant la fin de l'année."),
    ("Les enfants n'ont pas voulu manger leur soupe.", "Les enfants ont refusé de manger la soupe."),
    ("Правительство приняло новый закон о налогах.", "Новый закон о налогах был принят правительством."),
    ("Поезд прибывает в 10:35, а не в 10:53.", "Поезд приходит в 10:35, не в 10:53."),
    ("这个模型在两个数据集上都取得了更好的结果。", "该模型在两个数据集上的结果都更好。"),
    ("请在明天下午三点之前提交报告。", "报告请于明天下午3点前提交。"),
    ("この機能は次のバージョンで削除されます。", "次の版でこの機能は廃止される予定です。"),
    ("彼は毎朝六時に起きて走る。", "彼は毎朝6時に起き、ランニングをする。"),
    ("정부는 새로운 정책을 발표했다.", "새 정책이 정부에 의해 발표되었다."),
    ("الطقس اليوم أفضل من الأمس.", "طقس اليوم أحسن من طقس الأمس."),
    ("वह कल दिल्ली जाएगा।", "कल वह दिल्ली जाने वाला है।"),
    ("Tämä ohjelma lukee tiedoston rivi kerrallaan.", "Ohjelma lukee tiedostoa yksi rivi kerrallaan."),
    ("Ova naredba ispisuje sve rezultate odjednom.", "Naredba ispisuje rezultate sve odjednom."),
]


def sentences():
    """Sentences of this repository's documents and doc comments."""
    found = []
    for path in sorted(ROOT.glob("docs/*.md")) + [ROOT / "LICENSE-APACHE"]:
        text = re.sub(r"\s+", " ", path.read_text())
        found += re.split(r"(?<=[.;:]) ", text)
    for path in sorted(ROOT.glob("crates/*/src/*.rs")):
        found += re.findall(r"^\s*/// (.{30,})$", path.read_text(), re.M)
    return [text for text in found if 30 <= len(text) <= 240]


def changed(text, rng, amount):
    """The text with words left out, doubled, exchanged, cut and in other case or punctuation."""
    words = text.split(" ")
    for _ in range(max(1, int(amount * len(words)))):
        at = rng.randrange(len(words))
        kind = rng.randrange(7)
        if kind == 0 and len(words) > 1:
            del words[at]
        elif kind == 1:
            words.insert(at, words[rng.randrange(len(words))])
        elif kind == 2:
            other = rng.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        elif kind == 3:
            words[at] = words[at].upper() if rng.random() < 0.5 else words[at].lower()
        elif kind == 4:
            words[at] = words[at].rstrip(".,;:") + rng.choice(["", ",", ".", "s", "ing", "ed", "ly"])
        elif kind == 5:
            words[at] = words[at][: max(1, len(words[at]) - 2)]
        else:
            words[at] = rng.choice(["the", "of", "a", "layer", "model", "42", "3.5", "(x)", "not"])
    return " ".join(words)


def make_segments():
    rng = random.Random(19)
    rows = []
    for text in rng.sample(sentences(), 150):
        references = [text, changed(text, rng, 0.2), changed(text, rng, 0.4)]
        rows.append((changed(text, rng, 0.25), changed(text, rng, 0.5), references, False))
    for text, other in OTHER_LANGUAGES:
        rows.append((other, changed(text, rng, 0.3), [text, changed(other, rng, 0.2), other], False))
    for at, text in enumerate(ODD):
        others = [ODD[(at + k) % len(ODD)] for k in (1, 7, 13)]
        rows.append((text, changed(text, rng, 0.2), [text, others[0], changed(text, rng, 0.5)], True))
        rows.append((text, others[2], [others[1], text, ""], True))
    pool = sentences()
    for words in (400, 1500):
        text = ""
        while len(text.split()) < words:
            text += " " + rng.choice(pool)
        text = text.strip()
        summary = "\n".join(changed(line, rng, 0.3) for line in re.split(r"(?<=\.) ", text))
        references = [text.replace(". ", ".\n"), changed(text, rng, 0.1), ""]
        rows.append((summary, changed(text, rng, 0.4), references, True))
    for _ in range(25):  # summaries: several lines
        lines = rng.sample(pool, rng.randrange(2, 6))
        other = [changed(line, rng, 0.3) for line in rng.sample(lines, len(lines))]
        references = ["\n".join(lines), "\n".join(reversed(lines)), " ".join(lines[:1])]
        rows.append(("\n".join(other), "\n".join(other[:2]), references, False))
    with open(FOLDER / "segments.jsonl", "w") as file:
        for a, b, references, odd in rows:
            row = {"a": a, "b": b, "references": references, "odd": odd}
            print(json.dumps(row, ensure_ascii=False), file=file)


def metric(name, **options):
    return BLEU(**options) if name == "bleu" else CHRF(**METRICS[name], **options)


def corpus(rows, references):
    """All corpus scores of both systems against the first so many references."""
    texts = {system: [row[system] for row in rows] for system in "ab"}
    streams = [[row["references"][k] for row in rows] for k in range(references)]
    result = {}
    for name in METRICS:
        single, intervals = {}, {}
        for system, hypotheses in texts.items():
            scorer = metric(name)
            score = scorer.corpus_score(hypotheses, streams)
            single[system] = [score.score, score.format(signature=scorer.get_signature().format())]
            scorer = metric(name)
            try:
                score = scorer.corpus_score(hypotheses, streams, n_bootstrap=1000)
            except TypeError:  # chrF: statistics.mean refuses a float32 beside a float
                continue
            line = score.format(signature=scorer.get_signature().format())
            intervals[system] = [float(score._mean), float(score._ci), line]
        scorer = metric(name)
        systems = [(system, hypotheses) for system, hypotheses in texts.items()]
        signatures, scores = PairedTest(systems, {name: scorer}, streams, "bs", 1000)()
        (key,) = signatures
        paired = [
            [float(r.score), float(r.mean), float(r.ci), r.p_value and float(r.p_value)]
            for r in scores[key]
        ]
        result[name] = {
            "single": single,
            "confidence": intervals,
            "paired": paired,
            "paired_signature": signatures[key].format(),
        }
    for stemmer in (False, True):
        scorer = rouge_scorer.RougeScorer(KINDS, use_stemmer=stemmer)
        of_system = {}
        for system, hypotheses in texts.items():
            aggregator, scores = scoring.BootstrapAggregator(), []
            for hypothesis, *targets in zip(hypotheses, *streams):
                scores.append(scorer.score_multi(targets, hypothesis))
                aggregator.add_scores(scores[-1])
            np.random.seed(12345)
            intervals = aggregator.aggregate()
            of_system[system] = {
                kind: {
                    "mean": np.mean([score[kind] for score in scores], axis=0).tolist(),
                    "interval": [[float(x) for x in bound] for bound in intervals[kind]],
                }
                for kind in KINDS
            }
        result["rouge-stemmed" if stemmer else "rouge"] = of_system
    return result


def segment(row):
    """All scores of one segment: `a` against all references, ROUGE of `b` against the first, too."""
    references = row["references"]
    bleu = BLEU(effective_order=True).sentence_score(row["a"], references)
    plain, stemmed = (rouge_scorer.RougeScorer(KINDS, use_stemmer=s) for s in (False, True))
    flat = lambda scores: [float(x) for kind in KINDS for x in scores[kind]]
    return {
        "bleu": bleu.score,
        "bleu_counts": [bleu.sys_len, bleu.ref_len, *bleu.counts, *bleu.totals],
        "chrf": CHRF().sentence_score(row["a"], references).score,
        "chrf++": CHRF(word_order=2).sentence_score(row["a"], references).score,
        "rouge": flat(plain.score(references[0], row["b"])),
        "rouge-stemmed": flat(stemmed.score_multi(references, row["a"])),
    }


def large_counts():
    """Resamples whose sums are above 2^24, where float32 rounds."""
    rng = random.Random(5)
    stats = []
    for _ in range(40):
        total = [rng.randrange(2_000_000, 9_000_000) + k for k in range(4)]
        stats.append([total[0], total[0] + rng.randrange(-99999, 99999)])
        stats[-1] += [int(t * rng.uniform(0.1, 0.9)) for t in total] + total
    chrf = []
    for _ in range(40):
        row = []
        for _ in range(6):
            n = rng.randrange(2_000_000, 9_000_000)
            row += [n, n + rng.randrange(-99999, 99999), int(n * rng.uniform(0.1, 0.9))]
        chrf.append(row)
    result = {}
    for name, rows in (("bleu", stats), ("chrf", chrf)):
        _, scores = _bootstrap_resample(rows, metric(name), 100)
        result[name] = {"statistics": rows, "mean": 0, "scores": [float(s.score) for s in scores]}
        score = scores[0]
        score.estimate_ci(scores)
        result[name] |= {"mean": float(score._mean), "half_width": float(score._ci)}
    return result


def stems(rows):
    """Words of the segments and of all combinations of some stems and suffixes, with NLTK's stems."""
    words = set()
    for row in rows:
        for text in (row["a"], *row["references"]):
            words |= set(re.findall("[a-z0-9]+", text.lower()))
    ends = "s es ed ing ies ied y ly eed ational tional enci anci izer bli alli entli eli ousli ization ation ator alism"
    ends += " iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er"
    ends += " ic able ible ant ement ment ent ion sion tion ou ism ate iti ous ive ize e ll lle sses ss bl bling ated"
    for stem in "t tr b by oy fall hop fil hiss agr plaster mot controll gener vietnam rel cond y yy ay aba 7 a".split():
        words |= {stem + end for end in ends.split()}
    words |= set("sky skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed succeed".split())
    stemmer = PorterStemmer()
    with open(FOLDER / "stems.txt", "w") as file:
        for word in sorted(words):
            print(word, stemmer.stem(word), file=file)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--segments", action="store_true")
    if parser.parse_args().segments:
        make_segments()
    rows = [json.loads(line) for line in (FOLDER / "segments.jsonl").read_text().split("\n") if line]
    parts = {
        "all": rows,
        "regular": [row for row in rows if not row["odd"]],
        "odd": [row for row in rows if row["odd"]],
        "ten": rows[:10],
        "one": rows[3:4],
        "empty": [dict(row, a="", b=" ") for row in rows[:5]],
        "no match": [dict(row, a="zzzz 0", b="q") for row in rows[:5]],
    }
    tokenize = Tokenizer13a()
    expected = {
        "corpora": {
            f"{part}, {references} references": corpus(texts, references)
            for part, texts in parts.items()
            for references in ((1, 3) if part in ("all", "ten") else (2,))
        },
        "segments": [segment(row) for row in rows],
        "tokens_13a": [tokenize(text) for text in ODD],
        "odd_texts": ODD,
        "large_counts": large_counts(),
    }
    with open(FOLDER / "expected.json", "w") as file:
        lines = json.dumps(expected, ensure_ascii=False)
        print(lines.replace('}, {"bleu"', '},\n{"bleu"'), file=file)
    stems(rows)


if __name__ == "__main__":
    main()
