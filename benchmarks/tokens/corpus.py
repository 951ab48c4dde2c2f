"""What the token benches read: source files of the running environment, a subset that depends on their paths alone."""

import hashlib
import sysconfig
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

MAX_FILE_BYTES = 500_000
ROW_GROUP_BYTES = 16_000_000


def documents(max_bytes: int, suffixes: dict[str, str]) -> pl.DataFrame:
    """Files with these suffixes (suffix: language) in the columns of clean documents, each text once, sorted by id:
    the first in the order of a hash of their paths, until each language has its even share of `max_bytes`.
    """
    rows: dict[str, tuple[str, str, str]] = {}
    left = {language: max_bytes // len(set(suffixes.values())) for language in suffixes.values()}
    for root in (Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))):
        found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.suffix in suffixes}
        for name in sorted(found, key=lambda each: hashlib.sha256(each.encode()).digest()):
            language = suffixes[found[name].suffix]
            if left[language] > 0 and found[name].is_file() and found[name].stat().st_size <= MAX_FILE_BYTES:
                content = found[name].read_bytes()
                identity = hashlib.sha256(content).hexdigest()
                if identity not in rows and (text := content.decode("utf-8", "ignore")):
                    rows[identity] = (text, name, language)
                    left[language] -= len(content)
    frame = pl.DataFrame(
        [(identity, *row) for identity, row in sorted(rows.items())],
        schema=["id", "text", "path", "language"],
        orient="row",
    )
    return frame.with_columns(
        bytes=pl.col("text").str.len_bytes().cast(pl.Int64),
        cluster="id",
        package=pl.lit("environment"),
        licence=pl.lit("MIT"),
        source=pl.lit("environment"),
    )


def write_clean(frame: pl.DataFrame, folder: Path) -> None:
    """One Parquet shard with row groups of about 16 MB, as the stage clean writes them."""
    folder.mkdir()
    number = (frame["bytes"].cum_sum() - 1) // ROW_GROUP_BYTES
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    with pq.ParquetWriter(folder / "part-00000.parquet", table.schema, compression="zstd") as writer:
        for group in number.unique().sort():
            rows = frame.filter(number == group).rechunk()
            writer.write_table(rows.to_arrow(compat_level=pl.CompatLevel.oldest()), row_group_size=max(1, len(rows)))
