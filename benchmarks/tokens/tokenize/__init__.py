"""Clean Parquet to token files, with the documents table: ours against encode_batch_fast of tokenizers.

Both read the same shard and the same tokenizer.json, and write train and validation tokens, offsets and tables. The
peer is handed the ids of the held-out documents, which ours draws itself; ours also compares ids with tokenizers, and
writes the texts of the held-out documents.
"""

import importlib
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison

COMPARISON = Comparison(name="tokenize to shards", unit="MB/s", peers={"encode_batch_fast": 6.0})


def prepare(folder: Path) -> None:
    """Clean documents, a vocabulary and the held-out ids. Imported here: the peer's environment has no components."""
    importlib.import_module("benchmarks.tokens.tokenize.given").prepare(folder)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError unless tokens, offsets and documents are the same, bit for bit, in both splits."""
    if ours["digests"] != peer["digests"]:
        raise ValueError(f"the token files differ: {ours['digests']} and {peer['digests']}")
    return {
        "equal_tokens": ours["tokens"],
        "megabytes": ours["megabytes"],
        "engine": ours["engine"],
        "ratio_of_cpu_seconds": round(peer["cpu_seconds"] / ours["cpu_seconds"], 2),
    }
