"""Writes the same three rows in each format with pyarrow: rows.jsonl, .parquet, .stream.arrow, .file.arrow.

    pip install pyarrow
    python crates/eval/tests/formats/make.py
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
ROWS = [
    {"question": "Which is heavier?", "choices": {"text": ["a naïve stone", "日本"], "label": ["A", "B"]}, "answerKey": "A", "label": 0},
    {"question": "", "choices": {"text": ["one\ntwo"], "label": ["1"]}, "answerKey": "1", "label": 1},
    {"question": "\"Quoted\"?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B", "label": -1},
]


def main():
    columns = pa.Table.from_pylist(ROWS)
    # As `datasets` keeps class labels and as pandas keeps repeated texts.
    key = columns.schema.get_field_index("answerKey")
    table = columns.set_column(key, "answerKey", columns["answerKey"].dictionary_encode())
    large = table.schema.get_field_index("question")
    table = table.set_column(large, "question", table["question"].cast(pa.large_string()))
    (HERE / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    pq.write_table(table, HERE / "rows.parquet", compression="zstd", row_group_size=2)
    with pa.ipc.new_stream(HERE / "rows.stream.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(HERE / "rows.file.arrow", table.schema, options=options) as writer:
        writer.write_table(table)


if __name__ == "__main__":
    main()
