"""Writes checksums.parquet with pyarrow: 40 rows, uncompressed pages with their CRC-32."""

import pyarrow as pa
import pyarrow.parquet as pq

rows = [f"some text, number {i}, and more of it" for i in range(40)]
pq.write_table(
    pa.table({"text": rows}),
    "checksums.parquet",
    write_page_checksum=True,
    compression="none",
    use_dictionary=False,
)
