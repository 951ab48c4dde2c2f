"""The filters over real files, in memory: from a table of documents to the reason for each that goes.

Both sides have the same nine rules, in the same order, with the bounds that clean has by default: vendored paths, size,
the markers of generated code, mean and longest line, encoded runs, words that look random, share of letters and
digits, and whether Python parses. datatrove has no filter class for code: its own classes are for prose (words, stop
words, sentences), so its side writes these rules as its users do, with its LambdaFilter.
Seconds are of the processor, so that threads and other programs on the machine count for nothing.
Not the same: ours takes what only Python 3.12 parses, and also refuses what fails after parsing (`nonlocal` outside a
function).
"""

import random
import sysconfig
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import Comparison

INPUT = "documents.parquet"
COMPARISON = Comparison(name="filters", unit="documents/s", peers={"datatrove": 3.0})
_DOCUMENTS = 3_000
_MAX_BYTES = 1_000_000
_MIN_AGREEMENT = 0.999


def prepare(folder: Path) -> None:
    """3,000 Python files of this environment by a seed, as documents with the path that their source gives them; every
    fortieth is spoiled, since installed files always parse."""
    root = Path(sysconfig.get_path("purelib"))
    paths = sorted(root.rglob("*.py"))
    random.Random(0).shuffle(paths)
    rows: list[tuple[str, str]] = []
    for path in paths:
        content = path.read_bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        if 0 < len(content) <= _MAX_BYTES:
            spoiled = text[: len(text) * 2 // 3] + "\nprint 'cut'\n" if len(rows) % 40 == 0 else text
            rows.append((path.relative_to(root).as_posix(), spoiled))
        if len(rows) == _DOCUMENTS:
            break
    table = pl.DataFrame(rows, schema=["path", "text"], orient="row").with_columns(language=pl.lit("python"))
    table.write_parquet(folder / INPUT)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """The share of documents with the same reason or none; raises ValueError under 99.9 %."""
    paths = pl.read_parquet(folder / INPUT, columns=["path"])["path"].to_list()
    different = [path for path in paths if ours["reasons"].get(path) != peer["reasons"].get(path)]
    share = 1 - len(different) / len(paths)
    line = f"{share:.2%} of {len(paths)} documents decided alike, {len(ours['reasons'])} dropped"
    if share < _MIN_AGREEMENT:
        path = different[0]
        raise ValueError(f"{line}; {path}: {ours['reasons'].get(path)} and {peer['reasons'].get(path)}")
    return line
