"""What clean costs on a corpus of one, three and ten times the size: seconds, memory, and their ratios.

    python -m benchmarks.scale [--factors 1 3 10] [--megabytes 40] [--folder FOLDER]

The corpus: Python files of the running environment, and, for each further copy, the same files under other names: every
word that is neither a keyword nor short has its letters turned, in one way in each copy, so a copy parses as its
original did, and is no near duplicate of it. A fiftieth of the documents has a near duplicate planted beside it.
Memory is that of the stage's process and all its descendants, Ray's among them, every half second; pages that several
share are counted once (PSS). `work` is without the start of the interpreter, the imports and Ray.
"""

import argparse
import json
import keyword
import os
import re
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.installed import sample
from components.core import artifact
from components.core.config import Settings
from components.core.events import Events, read_events
from components.data import ingest
from components.data.config import CleanConfig, IngestConfig
from components.data.documents.document import SCHEMA, ShardWriter, document_ids
from flows.running.stage import tree_memory_bytes

_SAMPLE_SECONDS = 0.5
_PLANTED_EVERY = 50
# Not what follows a backslash, which may be an escape, nor what a digit begins.
_WORD = re.compile(r"(?<![\\\w])[A-Za-z_]\w{2,}")
_KEPT = frozenset([*keyword.kwlist, *keyword.softkwlist])


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of the stage."""

    factor: int
    corpus_bytes: int
    documents: int
    kept: int
    near_duplicates: int
    seconds: float
    work_seconds: float
    peak_memory_bytes: int


def renamed(text: str, copy: int) -> str:
    """The text with the letters of its words turned by `copy` places; copy 0 is the original."""
    if copy == 0:
        return text
    turned = {case: case[copy % 26 :] + case[: copy % 26] for case in (string.ascii_lowercase, string.ascii_uppercase)}
    table = str.maketrans({old: new for case, other in turned.items() for old, new in zip(case, other, strict=True)})

    def rename(match: re.Match[str]) -> str:
        word = match[0]
        other = word.translate(table)
        return word if word in _KEPT or other in _KEPT else other

    return _WORD.sub(rename, text)


def documents_of(texts: list[str], copy: int) -> pl.DataFrame:
    """One copy of the corpus with its planted near duplicates, as rows of SCHEMA."""
    named = [(f"{copy}/{row}.py", renamed(text, copy)) for row, text in enumerate(texts)]
    planted = [(f"planted/{path}", f"{text}\nplanted_line = {copy}\n") for path, text in named[::_PLANTED_EVERY]]
    frame = pl.DataFrame([*named, *planted], schema=["path", "text"], orient="row")
    constants = {"package": "p", "version": "1", "licence": "MIT", "language": "python", "source": "installed"}
    return frame.with_columns(
        document_ids(frame["text"]),
        *(pl.lit(value).alias(name) for name, value in constants.items()),
        bytes=pl.col("text").str.len_bytes().cast(pl.Int64),
    ).select(SCHEMA.names())


def write_corpus(texts: list[str], factor: int, out: Path) -> int:
    """An artifact like data/checked of so many copies; returns its bytes of text."""
    frame = pl.concat(documents_of(texts, copy) for copy in range(factor)).sort("id", "path")
    config = IngestConfig()
    with artifact.create(out, stage="ingest", config=config, inputs=[], code=Path(ingest.__file__)) as draft:
        writer = ShardWriter(draft.path, SCHEMA, config.shard_bytes)
        for start in range(0, frame.height, 1000):
            writer.write(frame[start : start + 1000])
        writer.close()
        draft.rows = dict(writer.rows)
    return writer.total_bytes


def measure(folder: Path, factor: int, corpus_bytes: int) -> Measured:
    """Run the stage in a process of its own, with a Ray of its own, and watch it."""
    state, out = folder / f"state-{factor}", folder / f"clean-{factor}"
    params = folder / "params.yaml"
    params.write_text(json.dumps({"clean": CleanConfig().model_dump(mode="json")}))
    paths = {"--params": params, "--source": folder / f"checked-{factor}", "--out": out}
    command = [sys.executable, "-m", "components.data.clean", *(str(each) for pair in paths.items() for each in pair)]
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, env=os.environ | {"OVERNIGHT_STATE": str(state)})
    while process.poll() is None:
        peak = max(peak, tree_memory_bytes(process.pid))
        time.sleep(_SAMPLE_SECONDS)
    seconds = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"clean ended with {process.returncode} at factor {factor}")
    events, _ = read_events(Events.path_of("clean", Settings(state=state)))
    startup = sum(each["value"] for each in events if each.get("name") == "startup_seconds")
    (finished,) = (each for each in events if each["kind"] == "finished")
    statistics = finished["statistics"]
    return Measured(
        factor=factor,
        corpus_bytes=corpus_bytes,
        documents=statistics["documents"],
        kept=statistics["kept"],
        near_duplicates=statistics["dropped_by_reason"].get("near_duplicate", 0),
        seconds=seconds,
        work_seconds=finished["seconds"] - startup,
        peak_memory_bytes=peak,
    )


def table(rows: list[Measured]) -> Iterator[str]:
    """The rows as lines, with ratios to the first."""
    yield "factor      MB  documents    kept    near  seconds    work  peak GB  x time  x work  x memory"
    for row in rows:
        first = rows[0]
        yield (
            f"{row.factor:6} {row.corpus_bytes / 1e6:7.1f} {row.documents:10} {row.kept:7} {row.near_duplicates:7} "
            f"{row.seconds:8.1f} {row.work_seconds:7.1f} {row.peak_memory_bytes / 1e9:8.2f} "
            f"{row.seconds / first.seconds:7.2f} {row.work_seconds / first.work_seconds:7.2f} "
            f"{row.peak_memory_bytes / first.peak_memory_bytes:9.2f}"
        )


def main() -> None:
    """Make the corpora, run the stage on each, print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--megabytes", type=float, default=40, help="size of one copy")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder when absent")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        folder, texts, size = Path(made), [], 0
        for text in sample(sys.maxsize, max_bytes=1_000_000):
            texts.append(text)
            size += len(text)
            if size >= arguments.megabytes * 1e6:
                break
        rows = []
        for factor in arguments.factors:
            written = write_corpus(texts, factor, folder / f"checked-{factor}")
            rows.append(measure(folder, factor, written))
            print(f"factor {factor}: {rows[-1].seconds:.1f} s", file=sys.stderr, flush=True)
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
