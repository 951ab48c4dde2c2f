"""Source files in three languages and prose: every eighth is held out, the others are what all sides learn from."""

import json
from pathlib import Path

import polars as pl

from benchmarks.tokens.corpus import documents
from components.tokens.config import VocabularyConfig
from components.tokens.encoding.special import SPECIAL_TOKENS
from components.tokens.shards.split import draw

CORPUS_BYTES = 16_000_000
SUFFIXES = {".py": "python", ".h": "cpp", ".hpp": "cpp", ".cpp": "cpp", ".cc": "cpp"} | {".js": "javascript"}
PROSE = {".md": "markdown", ".rst": "markdown"}


def prepare(folder: Path) -> None:
    """Write sample.parquet, held_out.parquet and settings.json."""
    frame = documents(CORPUS_BYTES, SUFFIXES | PROSE)
    is_held_out = pl.Series([draw(name, 0, "bench") < 1 / 8 for name in frame["id"].to_list()])
    frame.filter(~is_held_out).write_parquet(folder / "sample.parquet")
    frame.filter(is_held_out).write_parquet(folder / "held_out.parquet")
    settings = {"vocabulary_size": VocabularyConfig().vocabulary_size, "special_tokens": SPECIAL_TOKENS}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
