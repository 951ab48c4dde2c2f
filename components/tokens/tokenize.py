"""Turn clean documents into token files, with whole near-duplicate clusters held out for validation.

Reads   clean documents (`--source`), rows in the order of their ids; the tokenizer (`--tokenizer`)
Writes  per split: <split>.tokens.npy (uint16), <split>.offsets.npy (int64), <split>.documents.parquet (id, path,
        language, bytes, tokens, cluster); validation.parquet, the held-out rows with their text; contract.json, how
        the files fare by the suite `tokens`
Covers: every document, in the order of the ids, each followed by <|endoftext|>; text that looks like a special token
is encoded as ordinary characters.  Not covered: the order in which training sees them (components.tokens.order).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from components.core import artifact
from components.core.artifact import Manifest
from components.core.errors import DataError
from components.core.events import Events
from components.core.step import main
from components.data.contract import Contract
from components.tokens.config import TokenizeConfig
from components.tokens.contract import token_statistics
from components.tokens.special import END_OF_TEXT_ID
from components.tokens.split import is_validation
from components.tokens.store import SPLITS, Split, TokenWriter, offsets_path, tokens_path
from components.tokens.text import TextCodec

DOCUMENT_COLUMNS = ("id", "path", "language", "bytes", "tokens", "cluster")
VALIDATION_COLUMNS = ("id", "text", "path", "package", "licence", "language", "bytes", "cluster")


def chunks(parts: Sequence[Path], chunk_bytes: int) -> Iterator[pl.DataFrame]:
    """The rows of all parts in order, in frames of about `chunk_bytes` of text; `bytes` are those of the clean text."""
    for part in parts:
        rows = pl.read_parquet(part, columns=list(VALIDATION_COLUMNS))
        rows = rows.with_columns(bytes=pl.col("text").str.len_bytes().cast(pl.Int64))
        number = (rows["bytes"].cum_sum() - 1) // chunk_bytes
        yield from rows.with_columns(chunk=number).partition_by("chunk", maintain_order=True, include_key=False)


def encode(documents: pl.DataFrame, codec: TextCodec, writer: TokenWriter) -> pl.DataFrame:
    """Write the tokens of each row, each followed by <|endoftext|>, and return the rows' description."""
    encoded = codec.encode_batch(documents["text"].to_list())
    for tokens in encoded:
        tokens.append(END_OF_TEXT_ID)
    writer.append(encoded)
    counts = pl.Series("tokens", [len(tokens) for tokens in encoded], dtype=pl.Int64)
    return documents.with_columns(counts).select(DOCUMENT_COLUMNS)


def encode_all(
    config: TokenizeConfig, parts: Sequence[Path], codec: TextCodec, directory: Path
) -> dict[Split, pl.DataFrame]:
    """Write the token files of both splits and validation.parquet; return the description of each split's documents."""
    events = Events("tokenize")
    total = sum(int(pl.scan_parquet(part).select(pl.col("bytes").sum()).collect().item()) for part in parts)
    described: dict[Split, list[pl.DataFrame]] = {split: [] for split in SPLITS}
    validation: list[pl.DataFrame] = []
    done = 0
    with TokenWriter(directory, "train") as train, TokenWriter(directory, "validation") as held_out:
        for rows in chunks(parts, config.chunk_bytes):
            mask = is_validation(rows["cluster"], config.validation_fraction, config.seed)
            validation.append(rows.filter(mask))
            described["train"].append(encode(rows.filter(~mask), codec, train))
            described["validation"].append(encode(validation[-1], codec, held_out))
            done += int(rows["bytes"].sum())
            events.progress(done, max(total, done), "bytes")
    if validation:
        pl.concat(validation).write_parquet(directory / "validation.parquet", compression="zstd")
    return {split: pl.concat(frames) if frames else pl.DataFrame() for split, frames in described.items()}


def run(config: TokenizeConfig, *, source: Path, tokenizer: Path, out: Path) -> Manifest:
    """Encode every clean document. Raises DataError when a split would be empty."""
    inputs = [artifact.read(source), artifact.read(tokenizer)]
    parts = sorted(source.glob("part-*.parquet"))
    codec = TextCodec(tokenizer)
    contract = Contract("tokens", config.contract, Events("tokenize"), {"largest_id": codec.vocabulary_size - 1})
    with artifact.create(out, stage="tokenize", config=config, inputs=inputs, code=Path(__file__)) as draft:
        described = encode_all(config, parts, codec, draft.path)
        for split, documents in described.items():
            if not len(documents):
                raise DataError(
                    f"{source}: {sum(map(len, described.values()))} documents leave none for {split} at "
                    f"tokenize.validation_fraction {config.validation_fraction} and tokenize.seed {config.seed}; "
                    "add documents or change the fraction"
                )
            documents.write_parquet(draft.path / f"{split}.documents.parquet", compression="zstd")
            draft.rows[f"{split}.documents.parquet"] = len(documents)
            draft.rows[tokens_path(draft.path, split).name] = int(documents["tokens"].sum())
            draft.rows[offsets_path(draft.path, split).name] = len(documents) + 1
        draft.rows["validation.parquet"] = len(described["validation"])
        verdict = contract.require(token_statistics(described, draft.path), where=source)
        contract.write_report(verdict, draft.path)
        draft.statistics = statistics(described, codec, inputs[1])
    assert draft.manifest is not None
    return draft.manifest


def statistics(described: Mapping[Split, pl.DataFrame], codec: TextCodec, tokenizer: Manifest) -> dict[str, Any]:
    """Counts of both splits; `bytes_per_token` counts the bytes of texts against their tokens and <|endoftext|>."""
    num_tokens = {split: int(documents["tokens"].sum()) for split, documents in described.items()}
    num_bytes = {split: int(documents["bytes"].sum()) for split, documents in described.items()}
    return {
        "train_tokens": num_tokens["train"],
        "validation_tokens": num_tokens["validation"],
        "train_documents": len(described["train"]),
        "validation_documents": len(described["validation"]),
        "train_bytes": num_bytes["train"],
        "validation_bytes": num_bytes["validation"],
        "bytes_per_token": round(sum(num_bytes.values()) / sum(num_tokens.values()), 6),
        "vocabulary_size": codec.vocabulary_size,
        "tokenizer_digest": tokenizer.digest,
    }


if __name__ == "__main__":
    main("tokenize", TokenizeConfig, run)
