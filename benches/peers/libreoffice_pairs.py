"""English and German sentences from the help pages of LibreOffice, aligned by the ids of their paragraphs.

    apt-get download libreoffice-help-en-us libreoffice-help-de
    for package in libreoffice-help-*.deb; do dpkg -x "$package" help; done
    python libreoffice_pairs.py --help-files help/usr/share/libreoffice/help --out pairs

writes train.jsonl, validation.jsonl and test.jsonl with the fields source (English) and target (German). A page
belongs to one of the three as a whole. Paragraphs that the translation left as they are, that have fewer than three
words, or that another page has too are left out; no text occurs in two of the files. The pages are licensed under
MPL 2.0.

Needs: Python alone.
"""

import argparse
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre"}


class Paragraphs(HTMLParser):
    """The text of every block with an id."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.of_id, self.current = {}, None

    def handle_starttag(self, tag, attributes):
        if tag in BLOCKS:
            self.current = dict(attributes).get("id")
            if self.current:
                self.of_id[self.current] = ""

    def handle_endtag(self, tag):
        if tag in BLOCKS:
            self.current = None

    def handle_data(self, data):
        if self.current:
            self.of_id[self.current] += data


def paragraphs(path):
    parser = Paragraphs()
    parser.feed(path.read_text(encoding="utf-8"))
    return {name: " ".join(text.split()) for name, text in parser.of_id.items()}


def part_of(page):
    """Of a hundred pages five are for the test, five for validation."""
    number = int.from_bytes(hashlib.blake2b(page.encode(), digest_size=8).digest()) % 100
    return "test" if number < 5 else "validation" if number < 10 else "train"


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--help-files", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    english, german = a.help_files / "en-US/text", a.help_files / "de/text"
    for folder in (english, german):
        if not folder.is_dir():
            p.error(f"{folder}: there is no such folder; unpack both packages")
    parts = {"test": [], "validation": [], "train": []}
    pages = sorted(path.relative_to(english) for path in english.rglob("*.html") if (german / path.relative_to(english)).is_file())
    for page in pages:
        of_source, of_target = paragraphs(english / page), paragraphs(german / page)
        for name, source in of_source.items():
            target = of_target.get(name, "")
            if min(len(re.findall(r"\w+", text)) for text in (source, target)) >= 3 and source != target:
                parts[part_of(str(page))].append((source, target))
    a.out.mkdir(parents=True, exist_ok=True)
    seen = set()
    # The held-out parts first, so that the training text gives up what they share.
    for part, pairs in parts.items():
        kept = []
        for source, target in pairs:
            if source not in seen and target not in seen:
                seen.update((source, target))
                kept.append({"source": source, "target": target})
        with open(a.out / f"{part}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in kept)
        print(f"{part}: {len(kept)} pairs of {len(pairs)}, from {len(pages)} pages in all")


if __name__ == "__main__":
    main()
