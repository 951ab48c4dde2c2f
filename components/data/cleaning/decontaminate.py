"""Find documents that hold evaluation items: runs of words that they share with prompts, solutions and tests.

Reads   suites in any of the formats that evaluation runs (suite_formats.py): JSONL, gzipped where the name ends in .gz
Gives   which documents share how much with which item, and which of those have to go
Covers: copies in any layout, quotes, punctuation and order of functions; copies without the docstring or without the
solution; copies whose function has another name, as far as what is left is longer than a run of words.
Not covered: other names for the variables where the docstring is gone too, translations, paraphrases: what an n-gram
cannot see (Yang 2023, arXiv:2311.04850); an item without a passage of `min_words` words.

A passage is a part of an item: its prompt, its solution, both in a row, its test. A document is contaminated when it
holds a share of the distinct n-grams of a passage. A passage shorter than n words is one gram and matches as a whole.

Published rules: GPT-3 took 13 words, fewer, down to 8, for benchmarks of short items (Brown 2020, appendix C); Llama 2
more than 10 tokens and a share of the item (Touvron 2023, A.6); DeepSeek-Coder 10 words, shorter items as a whole (Guo
2024, 2.1); StarCoder whole docstrings and solutions (Li 2023). Here, HumanEval's 164 items planted in real files, and
34,195 files of installed Python, found at a share of 0.3: with 10 words 71 % of items whose lines have comments between
them and types gone, and 3 files, two of them Euclid's algorithm; with 13 words 51 % and 2 files; with 8 words 92 % and
8 files. Verbatim and reformatted copies: all of them with each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import ValidationError

from components.core.artifact import sha256_of
from components.core.errors import DataError
from components.data.cleaning.deduplicate import Hashes, word_hashes
from components.data.cleaning.suite_formats import format_of, json_lines, mistake
from components.data.config import DecontaminateConfig

PARTS = {
    "prompt": ("prompt",),
    "solution": ("canonical_solution",),
    "program": ("prompt", "canonical_solution"),
    "test": ("test",),
}
REASON = "contaminated"
OVERLAP_SCHEMA = pl.Schema({"suite": pl.String, "task_id": pl.String, "overlap": pl.Float64})
ITEMS = pl.List(pl.Struct(OVERLAP_SCHEMA))
CONTAMINATED_SCHEMA = pl.Schema([("id", pl.String()), ("path", pl.String()), *OVERLAP_SCHEMA.items()])
_OVERLAP_SCHEMA = pl.Schema(
    {
        "row": pl.Int64,
        "suite": pl.String,
        "task_id": pl.String,
        "part": pl.String,
        "shared": pl.UInt32,
        "ngrams": pl.UInt32,
    }
)
# Odd: a multiplication loses nothing modulo 2**64.
_BASE = np.uint64(0xD6E8FEB86659FD93)
_SIEVE_BITS = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """What to look for.

    passages  suite, task_id, part, words, length (words of its grams), ngrams (how many distinct ones); a row each
    grams     gram (hash of `length` words) and passage (row above), sorted; a gram may belong to several passages
    heads     hashes of the first `head_words` words of every gram, sorted
    digests   sha256 of each suite's file, by the suite's name
    """

    passages: pl.DataFrame
    grams: pl.DataFrame
    heads: Hashes
    head_words: int
    digests: dict[str, str]

    @property
    def lengths(self) -> list[int]:
        """The lengths that grams have, in words."""
        return sorted(set(self.passages["length"].to_list()) - {0})


def read_items(config: DecontaminateConfig) -> Items:
    """The items of all suites. Raises DataError with one line: file, line, what was found, what was needed."""
    rows, digests = [], {}
    for path in map(Path, config.suites):
        name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        if name in digests:
            raise DataError(f"{path}: a second suite of the name {name}; give each file a name of its own")
        digests[name] = sha256_of(path) if path.is_file() else ""
        rows += [(name, *each) for each in _parse(path)]
    schema = {"suite": pl.String, "task_id": pl.String, "part": pl.String, "text": pl.String}
    passages = pl.DataFrame(rows, schema=schema, orient="row")
    return prepare(passages, digests, ngram_words=config.ngram_words, min_words=config.min_words)


def prepare(passages: pl.DataFrame, digests: dict[str, str], *, ngram_words: int, min_words: int) -> Items:
    """Items from passages (suite, task_id, part, text); those of fewer than `min_words` words have no grams."""
    words, offsets = word_hashes(passages["text"].to_list())
    counts = np.diff(offsets)
    lengths = np.where(counts < min_words, 0, np.minimum(counts, ngram_words))
    tables = [pl.DataFrame(schema={"gram": pl.UInt64, "passage": pl.UInt32, "start": pl.Int64})]
    for passage in np.flatnonzero(lengths):
        starts = np.arange(offsets[passage], offsets[passage + 1] - lengths[passage] + 1)
        grams = _grams_at(words, starts, int(lengths[passage]))
        number = np.full(starts.size, passage, np.uint32)
        tables.append(pl.DataFrame({"gram": grams, "passage": number, "start": starts}))
    places = pl.concat(tables).unique(["gram", "passage"], keep="first", maintain_order=True)
    places = places.sort("gram", "passage")
    head_words = 1 << (min_words.bit_length() - 1)
    heads = _runs(words, head_words)[places["start"].to_numpy()] if places.height else np.zeros(0, np.uint64)
    counted = passages.drop("text").with_columns(
        words=pl.Series(counts, dtype=pl.Int64),
        length=pl.Series(lengths, dtype=pl.Int64),
        ngrams=pl.Series(np.bincount(places["passage"].to_numpy(), minlength=passages.height), dtype=pl.UInt32),
    )
    return Items(
        passages=counted, grams=places.drop("start"), heads=np.unique(heads), head_words=head_words, digests=digests
    )


def overlap(items: Items, texts: Sequence[str]) -> pl.DataFrame:
    """Which texts share grams with which passages: row, suite, task_id, part, shared and ngrams (distinct grams that
    the text has, and that there are), share; by row, then in the order of the suites. Pairs without any are left out.
    """
    hits = _hits(items, *word_hashes(list(texts)))
    passages = items.passages.with_row_index("passage").select("passage", "suite", "task_id", "part", "ngrams")
    counted = hits.join(items.grams, on="gram").group_by("row", "passage").agg(shared=pl.len())
    joined = counted.join(passages, on="passage").sort("row", "passage").select(_OVERLAP_SCHEMA.names())
    return joined.cast(_OVERLAP_SCHEMA).with_columns(share=pl.col("shared") / pl.col("ngrams"))


def contaminated(items: Items, texts: Sequence[str], min_share: float) -> pl.DataFrame:
    """row, suite, task_id, overlap (the largest share of a passage) for texts that hold `min_share` of a passage."""
    return (
        overlap(items, texts)
        .group_by("row", "suite", "task_id", maintain_order=True)
        .agg(overlap=pl.col("share").max())
        .filter(pl.col("overlap") >= min_share)
    )


def mark(documents: pl.DataFrame, items: Items, min_share: float) -> pl.DataFrame:
    """The documents with `reason` and `detail` set where they were null and the text is contaminated, and `items`, the
    list of suite, task_id and overlap behind that; null for the others."""
    undecided = documents["reason"].is_null()
    overlaps = contaminated(items, documents["text"].set(~undecided, "").to_list(), min_share)
    per_document = overlaps.group_by("row").agg(items=pl.struct(OVERLAP_SCHEMA.names()))
    return (
        documents.with_row_index("row")
        .cast({"row": pl.Int64})
        .join(per_document.join(_details(overlaps), on="row"), on="row", how="left", maintain_order="left")
        .with_columns(
            reason=pl.when(pl.col("items").is_null()).then("reason").otherwise(pl.lit(REASON)),
            detail=pl.when(pl.col("items").is_null()).then("detail").otherwise("found"),
        )
        .drop("row", "found")
    )


def listed(judged: pl.DataFrame) -> pl.DataFrame:
    """id, path, suite, task_id, overlap: a row for every item that a marked document holds."""
    rows = judged.select("id", "path", "items").drop_nulls("items").explode("items").unnest("items")
    return rows.select(CONTAMINATED_SCHEMA.names()).cast(CONTAMINATED_SCHEMA)


def _details(overlaps: pl.DataFrame) -> pl.DataFrame:
    """row and found: the three items that a document holds most of, as suite:task_id overlap, and how many more."""
    one = pl.format("{}:{} {}", "suite", "task_id", pl.col("overlap").round(2))
    more = pl.when(pl.len() > 3).then(pl.format(" and {} more", pl.len() - 3)).otherwise(pl.lit(""))
    ranked = overlaps.sort("row", "overlap", descending=[False, True], maintain_order=True)
    return ranked.group_by("row").agg(found=one.head(3).str.join(", ") + more.first())


def suite_statistics(items: Items, overlaps: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """By suite: sha256, items, those too short to look for, those that were found, and documents that held them."""
    per_item = items.passages.group_by("suite", "task_id").agg(pl.col("ngrams").max())
    statistics = {}
    for name, digest in sorted(items.digests.items()):
        mine = per_item.filter(pl.col("suite") == name)
        seen = overlaps.filter(pl.col("suite") == name)
        statistics[name] = {
            "sha256": digest,
            "items": mine.height,
            "items_too_short": int((mine["ngrams"] == 0).sum()),
            "items_found": seen["task_id"].n_unique(),
            "documents_dropped": seen["id"].n_unique(),
        }
    return statistics


def _hits(items: Items, words: Hashes, offsets: NDArray[np.int64]) -> pl.DataFrame:
    """row and gram, distinct, for grams of the texts that some passage has.

    Almost no place of a corpus begins one, so every place is asked once, for its first words alone, whatever lengths
    grams have; the lengths are looked at where that sieve lets something through.
    """
    frames = [pl.DataFrame(schema={"row": pl.Int64, "gram": pl.UInt64})]
    sieve = np.zeros(1 << _SIEVE_BITS, dtype=bool)
    sieve[_place(items.heads)] = True
    starts = np.flatnonzero(np.take(sieve, _place(_runs(words, items.head_words))))
    rows = np.searchsorted(offsets, starts, side="right") - 1
    known = items.grams["gram"].to_numpy()
    for length in items.lengths:
        whole = starts + length <= offsets[rows + 1]
        grams = _grams_at(words, starts[whole], length)
        held = known[np.minimum(np.searchsorted(known, grams), known.size - 1)] == grams
        frames.append(pl.DataFrame({"row": rows[whole][held].astype(np.int64), "gram": grams[held]}))
    return pl.concat(frames).unique()


def _grams_at(words: Hashes, starts: NDArray[np.int64], length: int) -> Hashes:
    """Hashes of the `length` words from each start on, shape (starts,)."""
    grams = np.full(starts.size, length, np.uint64)
    for place in range(length):
        grams = grams * _BASE + words[starts + place]
        grams ^= grams >> np.uint64(31)
    return grams


def _runs(words: Hashes, length: int) -> Hashes:
    """Hashes of every run of `length` words, a power of two, shape (words - length + 1,); each step doubles them."""
    runs, reach = words, 1
    while reach < length:
        longer = runs[:-reach] * (_BASE + np.uint64(2 * reach))
        longer += runs[reach:]
        runs, reach = longer, 2 * reach
    return runs


def _place(runs: Hashes) -> NDArray[np.int64]:
    """A run's place in the sieve: its upper bits, which all bits of its words reach."""
    return (runs >> np.uint64(64 - _SIEVE_BITS)).view(np.int64)


def _parse(path: Path) -> list[tuple[str, str, str]]:
    """task_id, part and text of every passage of a suite's file."""
    try:
        lines = json_lines(path)
    except DataError as error:
        raise DataError(f"{error}; correct clean.decontaminate.suites in params.yaml") from error
    if not lines:
        raise DataError(f"{path}: no item in it; a suite has one JSON object a line with task_id and prompt")
    kind = format_of(lines[0][0])
    passages, seen = [], set()
    for value, where in lines:
        try:
            item = kind.model_validate(value).item()
        except ValidationError as error:
            raise mistake(error, where) from error
        if item["task_id"] in seen:
            raise DataError(f"{path}: task_id {item['task_id']!r} is there twice; each item needs its own")
        seen.add(item["task_id"])
        for part, fields in PARTS.items():
            passages.append((item["task_id"], part, "\n".join(item.get(field) or "" for field in fields)))
    return passages
