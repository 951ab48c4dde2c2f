"""Say why each file would be kept, dropped or quarantined, and what would be redacted in it.

Covers: what ingest would leave (binary, not UTF-8, empty, too large), the rules of check_raw, the filters, the
evaluation items, the redaction and the duplicates of clean, by the code of the stages. Duplicates are looked for among
the given files: which of them would stay in the place of another.
Not covered: duplicates in the rest of the corpus, the licence, which a file does not state, and opt-outs.

A path is judged as a source would name it: below a given directory, below the packages of this interpreter, or below
the working directory.
"""

import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.core.errors import DataError
from components.data.cleaning.decontaminate import Items, mark, read_items
from components.data.cleaning.deduplicate import (
    Rows,
    band_hashes,
    estimate_bound,
    jaccard,
    near_pairs,
    preference,
    shingle_sets,
    signatures,
    staying,
)
from components.data.cleaning.filters import apply_filters
from components.data.cleaning.redact import Redaction, find_all, redact_text
from components.data.config import CheckRawConfig, CleanConfig, DuplicateConfig
from components.data.contracts.measures import document_statistics
from components.data.contracts.rules import violations
from components.data.documents.document import SCHEMA, document_ids
from components.data.documents.programming_languages import language_of

_MAX_FILE_BYTES = 10_000_000  # as the sources have it by default
_BATCH_BYTES = 8_000_000
_HEAD_BYTES = 8_192
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The fate of a file. `details` has the figure that decided for each of `reasons`; `lines` the line, counted from
    1, of each of `redactions`, whose spans are in characters of the file's text."""

    path: Path
    decision: str = "keep"
    reasons: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    redactions: tuple[Redaction, ...] = ()
    lines: tuple[int, ...] = ()

    def row(self) -> dict[str, Any]:
        """{path, decision, reasons, redactions [{kind, start, end}]}, as JSON has it."""
        spans = [{"kind": each.kind, "start": each.start, "end": each.end} for each in self.redactions]
        return {
            "path": str(self.path),
            "decision": self.decision,
            "reasons": list(self.reasons),
            "redactions": spans,
        }

    def report(self) -> Iterator[str]:
        """The lines that a person reads: the decision, a line a reason with its figure, a line a span."""
        yield f"{self.decision:<10} {self.path}"
        for reason, detail in zip(self.reasons, self.details, strict=True):
            yield f"{'':11}{reason}: {_shown(detail)}" if detail else f"{'':11}{reason}"
        for line, span in zip(self.lines, self.redactions, strict=True):
            yield f"{'':11}line {line}: {span.kind} in characters {span.start} to {span.end} becomes {span.placeholder}"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file, and the path that a source would give it."""

    location: Path
    path: str


# A file with its text, or with its fate where it has none.
_Read = tuple[File, str | Explanation]


def explain(
    paths: Sequence[Path], check: CheckRawConfig | None = None, clean: CleanConfig | None = None
) -> list[Explanation]:
    """The fate of each file, and of each file below each directory, in the given order, by path within a directory.

    A file that is given twice is told once. Raises DataError for a path that cannot be read, and for a directory
    without files.
    """
    check = check or CheckRawConfig.model_validate({})
    clean = clean or CleanConfig.model_validate({})
    items = read_items(clean.decontaminate)
    explanations: list[Explanation] = []
    kept: list[pl.DataFrame] = []
    files = {file.location.absolute(): file for path in paths for file in _files(path)}
    for batch in _batches(files.values()):
        fates, documents = _judge(batch, check, clean, items)
        kept.append(documents.with_columns(pl.col("place") + len(explanations)))
        explanations += fates
    return _with_duplicates(explanations, pl.concat(kept), clean) if kept else explanations


def _files(path: Path) -> list[File]:
    """The file, or all files below the directory but hidden ones and links, as its source would take them."""
    if not path.is_dir():
        return [File(location=path, path=_path_in_source(path))]
    files = [
        File(location=each, path=each.relative_to(path).as_posix())
        for each in sorted(path.rglob("*"))
        if each.is_file()
        and not each.is_symlink()
        and not any(part.startswith(".") for part in each.relative_to(path).parts)
    ]
    if not files:
        raise DataError(f"{path}: found a directory without files, needed some; give paths of files")
    return files


def _path_in_source(path: Path) -> str:
    whole = path.absolute()
    packages = (sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))
    for root in (*(Path(each) for each in packages), Path.cwd()):
        if whole.is_relative_to(root):
            return whole.relative_to(root).as_posix()
    return path.name


def _batches(files: Iterable[File]) -> Iterator[list[_Read]]:
    """Files with their texts, or with their fate where they have none, about _BATCH_BYTES at a time."""
    batch: list[_Read] = []
    size = 0
    for file in files:
        content = _text(file.location)
        batch.append((file, content))
        size += len(content) if isinstance(content, str) else 0
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _text(path: Path) -> str | Explanation:
    """The text of a file, or why ingest would leave it."""
    try:
        if (size := path.stat().st_size) > _MAX_FILE_BYTES:
            return _left(path, "too_large", f"{size} bytes, allowed {_MAX_FILE_BYTES}")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give paths of readable files") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = "binary" if b"\0" in content[:_HEAD_BYTES] else "not_utf8"
        return _left(path, reason, f"byte {error.start} is 0x{content[error.start]:02x}")
    return text if text.strip() else _left(path, "empty", f"{len(content)} bytes")


def _left(path: Path, reason: str, detail: str) -> Explanation:
    return Explanation(path=path, decision="quarantine", reasons=(reason,), details=(detail,))


def _judge(
    batch: list[_Read], check: CheckRawConfig, clean: CleanConfig, items: Items
) -> tuple[list[Explanation], pl.DataFrame]:
    """The fate of each file of a batch by itself, in their order, and the documents that stay, with their place."""
    fates = {place: content for place, (_, content) in enumerate(batch) if isinstance(content, Explanation)}
    documents = _documents(batch, check.licences[0])
    broken = violations(document_statistics(documents, check.licences), "raw", check)
    for (row,), rules in broken.group_by("row", maintain_order=True):
        place = documents["place"][row]
        details = tuple("" if value is None else str(value) for value in rules["value"])
        path = batch[place][0].location
        fates[place] = Explanation(path=path, decision="quarantine", reasons=tuple(rules["rule"]), details=details)
    documents = documents.filter(~pl.col("place").is_in(list(fates)))
    judged = mark(apply_filters(documents, clean.filters), items, clean.decontaminate.min_share)
    for place, reason, detail in judged.drop_nulls("reason").select("place", "reason", "detail").iter_rows():
        path = batch[place][0].location
        fates[place] = Explanation(path=path, decision="drop", reasons=(reason,), details=(detail or "",))
    stays = documents.filter(judged["reason"].is_null())
    spans = dict(find_all(stays["text"], clean.redact))
    for row, (place, text) in enumerate(stays.select("place", "text").iter_rows()):
        redactions = tuple(spans.get(row, ()))
        lines = tuple(text.count("\n", 0, each.start) + 1 for each in redactions)
        fates[place] = Explanation(path=batch[place][0].location, redactions=redactions, lines=lines)
    return [fates[place] for place in range(len(batch))], stays


def _documents(batch: list[_Read], licence: str) -> pl.DataFrame:
    """The files that have a text as a table of documents, with `place`, theirs in the batch; the licence passes."""
    rows = [(place, file.path, text) for place, (file, text) in enumerate(batch) if isinstance(text, str)]
    table = pl.DataFrame(rows, schema={"place": pl.Int64, "path": pl.String, "text": pl.String}, orient="row")
    return table.with_columns(
        document_ids(table["text"]),
        pl.Series("language", [language_of(path) or "unknown" for path in table["path"]], dtype=pl.String),
        pl.col("text").str.len_bytes().cast(pl.Int64).alias("bytes"),
        package=pl.lit(""),
        version=pl.lit(""),
        licence=pl.lit(licence),
        source=pl.lit("directory"),
    ).select("place", *SCHEMA.names())


def _with_duplicates(explanations: list[Explanation], documents: pl.DataFrame, clean: CleanConfig) -> list[Explanation]:
    """The fates once the files that stay are compared with each other: of equal and of near ones, one stays."""
    ranked = documents.with_columns(pl.Series("rank", preference(documents, clean.duplicates))).sort("rank")
    best = ranked.unique("id", keep="first").select("id", pl.col("place").alias("best"))
    copies = documents.join(best, on="id").filter(pl.col("place") != pl.col("best"))
    instead = {place: (best, "exact_duplicate", "the same text as") for place, best in copies["place", "best"].rows()}
    if clean.duplicates.near:
        distinct = documents.filter(pl.col("place").is_in(best["best"].implode()))
        for row, other, similarity in near_duplicates(distinct, clean):
            said = f"{similarity:.3f} of the shingles in common with"
            instead[distinct["place"][row]] = (distinct["place"][other], "near_duplicate", said)
    answer = list(explanations)
    for place, (other, reason, said) in instead.items():
        path, details = explanations[place].path, (f"{said} {explanations[other].path}",)
        answer[place] = Explanation(path=path, decision="drop", reasons=(reason,), details=details)
    return answer


def near_duplicates(documents: pl.DataFrame, clean: CleanConfig) -> Iterator[tuple[int, int, float]]:
    """(row that goes, row that stays in its place, their similarity) among some documents, whose texts differ.

    As clean decides: over the redacted texts, by bands, then by the sets of shingles.
    """
    config = clean.duplicates
    texts = [redact_text(text, clean.redact)[0] for text in documents["text"]]
    sets = shingle_sets(texts, config.shingle_tokens)
    rank = preference(documents.with_columns(bytes=pl.Series([len(text.encode()) for text in texts])), config)
    pairs = _candidates(texts, rank, config)
    near = [jaccard(sets[one], sets[other]) >= config.similarity for one, other in pairs]
    for row, other in enumerate(staying(pairs[near], rank).tolist()):
        if row != other:
            yield row, other, jaccard(sets[row], sets[other])


def _candidates(texts: list[str], rank: Rows, config: DuplicateConfig) -> Rows:
    """Pairs of texts that may be near, shape (P, 2)."""
    matrix = signatures(
        texts, shingle_tokens=config.shingle_tokens, num_permutations=config.num_permutations, seed=config.seed
    )
    hashes, rows = band_hashes(matrix, config.rows_per_band)
    bound = estimate_bound(config.similarity, config.num_permutations)
    pairs = near_pairs(hashes, rows, matrix, rank, rows_per_band=config.rows_per_band, bound=bound)
    return np.concatenate([np.zeros((0, 2), np.int64), *pairs])


def _shown(detail: str) -> str:
    """At most a line of it."""
    return detail if len(detail) <= _SHOWN_CHARACTERS else f"{detail[:_SHOWN_CHARACTERS]}..."
