"""Bits per byte of held-out documents, each read alone from <|endoftext|> on, and what xz -9 and counts make of each.

A document longer than the context is read in windows that overlap by half, so that every token is predicted once, from
at least half a context where the document has it. Its end is a prediction too and counts; its byte does not exist, so
nothing flatters the figure.

With related files of their package before them and without (`context_bits`), the same tokens are scored both times: the
start of a document, at most half the context. Training files come before it as far as the context has room
(components.inference.repository_context); neither they nor paths are scored.
Not covered: documents without a training file in their package; what of that gain is due to the document's own path.
"""

import lzma
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.core.columns import read_columns
from components.data.documents.document import row_groups
from components.evaluation.config import LikelihoodConfig, RepositoryConfig
from components.evaluation.measures.ngram import NgramModel
from components.inference.engine import Engine, Prediction
from components.inference.repository_context import RelatedFile, context_tokens
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import END_OF_TEXT_ID
from components.tokens.repository.groups import may_stand_in_groups
from components.tokens.repository.imports import imported_modules, nearest_last
from components.tokens.shards.writer import VALIDATION
from components.training.engine.batches.strides import strided_windows

REPOSITORY = "repository_context"
WITH_CONTEXT, WITHOUT_CONTEXT = "with_context_bits_per_byte", "without_context_bits_per_byte"
UNNAMABLE = r"[^\w.+-]+"  # metrics are named suite/metric, without spaces


def predictions(
    engine: Engine, documents: Sequence[Sequence[int]], end_of_text: int = END_OF_TEXT_ID
) -> list[Prediction]:
    """What the engine expects of each document and of its end, given its T tokens without <|endoftext|>: T + 1 each."""
    sequences: list[Sequence[int]] = []
    owners: list[tuple[int, int]] = []
    for index, document in enumerate(documents):
        tokens = [end_of_text, *document, end_of_text]
        for start, scored, end in strided_windows(len(tokens) - 1, engine.context_tokens):
            sequences.append(tokens[start : end + 1])
            owners.append((index, scored - start))
    parts: list[list[Prediction]] = [[] for _ in documents]
    for (index, scored), prediction in zip(owners, engine.predict(sequences), strict=True):
        new = Prediction(log_probs=prediction.log_probs[scored:], top_log_probs=prediction.top_log_probs[scored:])
        parts[index].append(new)
    return [
        Prediction(
            log_probs=np.concatenate([each.log_probs for each in part]),
            top_log_probs=np.concatenate([each.top_log_probs for each in part]),
        )
        for part in parts
    ]


def bits_per_byte(log_probs: Iterable[NDArray[np.floating]], num_bytes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits per byte of each document, shape (documents,), given the natural logs of its tokens' probabilities."""
    nats = np.array([-each.sum(dtype=np.float64) for each in log_probs])
    return nats / math.log(2) / num_bytes


def ngram_bits_per_byte(
    model: NgramModel,
    documents: Sequence[Sequence[int]],
    num_bytes: NDArray[np.float64],
    end_of_text: int = END_OF_TEXT_ID,
) -> NDArray[np.float64]:
    """What an n-gram model needs for the same predictions."""
    return bits_per_byte((model.log_probs([end_of_text, *each, end_of_text]) for each in documents), num_bytes)


def unigram_bits_per_byte(
    counts: NDArray[np.int64],
    documents: Sequence[Sequence[int]],
    num_bytes: NDArray[np.float64],
    end_of_text: int = END_OF_TEXT_ID,
) -> NDArray[np.float64]:
    """What a model that knows only how often each token occurs needs: the state before pretraining.

    `counts` of the training tokens, shape (vocabulary,), each plus one (Laplace).
    """
    bits = -np.log2((counts + 1) / (counts + 1).sum())
    return np.array([bits[[*document, end_of_text]].sum() for document in documents]) / num_bytes


def xz_bits_per_byte(texts: Sequence[str], num_bytes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits per byte of `xz -9`, one text at a time, shape (documents,)."""
    sizes = [len(lzma.compress(text.encode(), preset=9, check=lzma.CHECK_CRC64)) for text in texts]
    return 8 * np.array(sizes, dtype=np.float64) / num_bytes


def slices(
    documents: pl.DataFrame, num_bytes: NDArray[np.float64], config: LikelihoodConfig
) -> dict[str, NDArray[np.int64]]:
    """Rows of the documents (columns language, source) by language, by source and by length, under the name of each
    slice; those of fewer than `min_slice_documents` are left out."""
    edges = config.length_edges_bytes
    between = [f"{low}_to_{high}" for low, high in pairwise(edges)]
    lengths = [f"below_{edges[0]}", *between, f"from_{edges[-1]}"]
    columns = {
        "language": documents["language"].fill_null("unknown").to_list(),
        "source": documents["source"].fill_null("unknown").to_list(),
        "bytes": [lengths[index] for index in np.searchsorted(edges, num_bytes, side="right")],
    }
    by_name: dict[str, NDArray[np.int64]] = {}
    for kind, values in columns.items():
        for value in sorted(set(values)):
            rows = np.flatnonzero(np.array(values) == value)
            if len(rows) >= config.min_slice_documents:
                by_name[f"{kind}_{re.sub(UNNAMABLE, '_', value)}"] = rows
    return by_name


@dataclass(frozen=True, slots=True, kw_only=True)
class RelatedDocument:
    """A held-out document, and training files of its package, the one that tells most about it last."""

    id: str
    path: str
    text: str
    files: tuple[RelatedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextBits:
    """Of each document: bits per byte with and without related files, and the bytes that are scored; (documents,)."""

    with_context: NDArray[np.float64]
    without_context: NDArray[np.float64]
    num_bytes: NDArray[np.float64]


def related_documents(tokens: Path, source: Path, config: RepositoryConfig, seed: int) -> tuple[RelatedDocument, ...]:
    """Held-out documents of data/tokens, drawn by the seed, with related files of data/clean; by id.

    Paths are read of all documents, texts of those alone that are shown.
    """
    held_out = read_columns(tokens / VALIDATION, ["id", "text", "path", "package"]).sort("id")
    of_packages = held_out.filter(may_stand_in_groups(held_out) & (held_out["text"] != ""))
    packages = of_packages["package"].unique().to_list()
    named = pl.concat(
        rows.filter(pl.col("package").is_in(packages)) for _, _, rows in row_groups(source, ["id", "path", "package"])
    )
    training = named.filter(~pl.col("id").is_in(held_out["id"].to_list()))
    asked = of_packages.join(training, on="package", how="semi", maintain_order="left")
    asked = asked[np.sort(np.random.default_rng(seed).permutation(len(asked))[: config.documents])]
    shown: list[list[str]] = []
    for row in asked.iter_rows(named=True):
        beside = training.filter(package=row["package"])
        nearest = nearest_last(row["path"], imported_modules(row["text"]), beside["path"].to_list())
        shown.append(beside["id"][nearest[-config.files :]].to_list())
    files = _files(source, {identity for each in shown for identity in each})
    return tuple(
        RelatedDocument(id=row["id"], path=row["path"], text=row["text"], files=tuple(files[each] for each in beside))
        for row, beside in zip(asked.iter_rows(named=True), shown, strict=True)
    )


def _files(source: Path, ids: Collection[str]) -> dict[str, RelatedFile]:
    """Documents of data/clean by id."""
    groups = (rows.filter(pl.col("id").is_in(sorted(ids))) for _, _, rows in row_groups(source, ["id", "path", "text"]))
    return {
        identity: RelatedFile(path=path, text=text)
        for rows in groups
        for identity, path, text in rows.select("id", "path", "text").iter_rows()
    }


def context_bits(engine: Engine, codec: TextCodec, documents: Sequence[RelatedDocument]) -> ContextBits:
    """What a model needs for the documents. Raises ValueError for a tokenizer without a token that begins a file."""
    bodies = [codec.encode(each.text)[: max(1, engine.context_tokens // 2)] for each in documents]
    contexts = [
        context_tokens(codec, each.path, each.text, each.files, engine.context_tokens - len(body))
        for each, body in zip(documents, bodies, strict=True)
    ]
    token_bytes, end = codec.bytes_of_tokens(), codec.special.end_of_text
    num_bytes = np.array([token_bytes[body].sum() for body in bodies], dtype=np.float64)

    def bits(before: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        sequences = [[end, *context, *body] for context, body in zip(before, bodies, strict=True)]
        scores = zip(engine.score(sequences), bodies, strict=True)
        return bits_per_byte((each[-len(body) :] for each, body in scores), num_bytes)

    return ContextBits(with_context=bits(contexts), without_context=bits([()] * len(bodies)), num_bytes=num_bytes)
