"""Turn clean documents into token files, with whole near-duplicate clusters held out for validation.

Reads   clean documents (`--source`), rows in the order of their ids; the tokenizer (`--tokenizer`)
Writes  per split: <split>-*.tokens.npy, <split>.offsets.npy, <split>.blocks.npy, <split>.sources.json
        (components.tokens.shards.token_store says what they hold), <split>.documents.parquet (id, path, source,
        language, bytes, encoded_bytes, tokens, cluster); validation.parquet, the held-out rows with their text;
        contract.json, how the files fare by the suite `tokens`
Covers: every document, source by source and in the order of the ids, each followed by <|endoftext|>; behind those of a
source a share of its training documents as files of a package, one behind the other (components.tokens.repository);
text that looks like a special token is encoded as ordinary characters; memory of a few row groups and the offsets,
whatever the size of the corpus, and with files of packages their columns without the texts.
Not covered: the order in which training sees them (components.tokens.shards.order).

fastokens encodes; at the start and in every chunk its ids of some of the documents are compared with those of
tokenizers. If any differ, everything is written again by tokenizers, and events and statistics say why.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.core import artifact
from components.core.artifact import Manifest
from components.core.errors import DataError
from components.core.events import Events
from components.core.step import main
from components.data.contracts.contract import Contract
from components.data.documents.document import cut, row_groups
from components.tokens.config import TokenizeConfig
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.encoder import Encoder
from components.tokens.encoding.special import NAMES
from components.tokens.encoding.token_contract import token_statistics
from components.tokens.foreign.initial import INITIAL
from components.tokens.repository.writer import DocumentWriter
from components.tokens.shards.split import draw, is_validation
from components.tokens.shards.token_store import SPLITS
from components.tokens.shards.writer import VALIDATION_SCHEMA, Output

# The first chunk is compared more: a tokenizer that fastokens reads differently shows at once.
FIRST_VERIFIED_SHARE = 0.02
DOCUMENTS_READ = [*VALIDATION_SCHEMA.names(), "source"]

REQUIRED = ("fim_prefix", "fim_middle", "fim_suffix", "pad")

Item = TypeVar("Item")
Encoded = tuple[pl.DataFrame, NDArray[np.uint32], NDArray[np.int64]]


class DifferentIdsError(Exception):
    """fastokens and tokenizers disagree about a document; its message is the document's id."""


def chunks(source: Path, chunk_bytes: int) -> Iterator[pl.DataFrame]:
    """The rows of all shards, each source's in their order, in frames of about `chunk_bytes` of text from one source;
    `bytes` count the clean text. The shards are read once for each source, so that nothing is sorted or spooled."""
    named = [rows["source"].unique() for _, _, rows in row_groups(source, ["source"])]
    for name in sorted(set().union(*named)):
        for _, _, rows in row_groups(source, DOCUMENTS_READ):
            rows = rows.filter(pl.col("source") == name)
            rows = rows.with_columns(bytes=pl.col("text").str.len_bytes().cast(pl.Int64))
            for piece in cut(rows["bytes"], chunk_bytes):
                yield rows[piece]


def encoded(frames: Iterator[pl.DataFrame], encoder: Encoder) -> Iterator[Encoded]:
    """Each frame with the tokens of all its texts one after another, and the number of each text's; `encoded_bytes` are
    those that a text's tokens are to stand for."""
    for rows in frames:
        texts = rows["text"].to_list()
        yield rows.with_columns(encoded_bytes=pl.Series(encoder.codec.bytes_of_texts(texts))), *encoder.encode(texts)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the next one is made in a thread while this one is worked on."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item


def choose_to_verify(rows: pl.DataFrame, share: float, seed: int) -> list[int]:
    """The first rows in the order of a seeded hash of their ids, at least one, until they hold `share` of the bytes."""
    order = pl.Series([draw(name, seed, "verify") for name in rows["id"].to_list()], dtype=pl.Float64).arg_sort()
    before = rows["bytes"].gather(order).cum_sum() - rows["bytes"].gather(order)
    return order.filter((before < share * int(rows["bytes"].sum())) | (before == 0)).to_list()


def verify(
    encoder: Encoder, rows: pl.DataFrame, tokens: NDArray[np.uint32], lengths: NDArray[np.int64], chosen: list[int]
) -> None:
    """Compare the ids of the chosen rows with those of tokenizers. Raises DifferentIdsError."""
    stops = np.cumsum(lengths)
    ids = np.concatenate([tokens[stops[row] - lengths[row] : stops[row]] for row in chosen])
    differs = encoder.differing(rows["text"].gather(chosen).to_list(), ids, lengths[chosen])
    if differs is not None:
        raise DifferentIdsError(rows["id"][chosen[differs]])


def encode_all(config: TokenizeConfig, source: Path, encoder: Encoder, writer: DocumentWriter, events: Events) -> int:
    """Write every document. Returns how many were compared with tokenizers. Raises DifferentIdsError."""
    total = sum(int(sizes["bytes"].sum()) for _, _, sizes in row_groups(source, ["bytes"]))
    done = num_verified = 0
    for rows, tokens, lengths in ahead(encoded(ahead(chunks(source, config.chunk_bytes)), encoder)):
        if encoder.engine != "tokenizers":
            share = config.verified_share if done else max(config.verified_share, FIRST_VERIFIED_SHARE)
            chosen = choose_to_verify(rows, share, config.seed)
            verify(encoder, rows, tokens, lengths, chosen)
            num_verified += len(chosen)
        is_held_out = is_validation(rows["cluster"], config.validation_fraction, config.seed)
        writer.append(rows, tokens, lengths, is_held_out)
        done += int(rows["bytes"].sum())
        events.progress(done, max(total, done), "bytes")
    return num_verified


def write_all(
    config: TokenizeConfig, source: Path, tokenizer: Path, directory: Path, events: Events
) -> tuple[Output, dict[str, str | int]]:
    """Write the files of both splits, by fastokens if its ids are those of tokenizers. Returns what was written, and
    which engine did it, why, and how many documents were compared.
    """
    encoder = Encoder(tokenizer, config.engine)
    size = {"vocabulary_size": encoder.codec.vocabulary_size, "shard_tokens": config.shard_tokens}
    try:
        with Output(directory, **size) as output, DocumentWriter(config, encoder, output, directory) as writer:
            num_verified = encode_all(config, source, encoder, writer, events)
        reason = encoder.reason
    except DifferentIdsError as error:
        reason = f"fastokens and tokenizers give different ids for document {error}"
        for path in directory.iterdir():
            path.unlink()
        encoder, num_verified = Encoder(tokenizer, "tokenizers"), 0
        with Output(directory, **size) as output, DocumentWriter(config, encoder, output, directory) as writer:
            encode_all(config, source, encoder, writer, events)
    if reason is not None:
        events.note(f"encoded by tokenizers, about ten times slower: {reason}")
    decided: dict[str, str | int] = {"engine": encoder.engine, "verified_documents": num_verified}
    decided |= {"repository_groups": writer.num_groups, "repository_documents": writer.num_grouped}
    return output, decided if reason is None else {**decided, "engine_reason": reason}


def require_special_tokens(codec: TextCodec, tokenizer: Path) -> None:
    """Raise DataError unless the tokenizer has the special tokens of fill in the middle, and a chat form."""
    lacking = [f"token {' or '.join(NAMES[each])}" for each in REQUIRED if getattr(codec.special, each) is None]
    if codec.special.chat is None:
        lacking.append("chat form")
    if lacking:
        raise DataError(
            f"{tokenizer}: found no {lacking[0]}; learn the tokenizer with the stage vocabulary, or adopt that of a "
            "checkpoint by pretrain.init_from, which adds it"
        )


def run(config: TokenizeConfig, *, source: Path, tokenizer: Path, out: Path) -> Manifest:
    """Encode every clean document. Raises DataError when a split would be empty."""
    inputs = [artifact.read(source), artifact.read(tokenizer)]
    events = Events("tokenize")
    codec = TextCodec(tokenizer)
    require_special_tokens(codec, tokenizer)
    contract = Contract("tokens", config.contract, events, {"largest_id": codec.vocabulary_size - 1})
    with artifact.create(out, stage="tokenize", config=config, inputs=inputs, code=Path(__file__)) as draft:
        output, decided = write_all(config, source, tokenizer, draft.path, events)
        for split in SPLITS:
            if not output.rows[f"{split}.documents.parquet"]:
                total = sum(output.rows[f"{each}.documents.parquet"] for each in SPLITS)
                raise DataError(
                    f"{source}: {total} documents leave none for {split} at "
                    f"tokenize.validation_fraction {config.validation_fraction} and tokenize.seed {config.seed}; "
                    "add documents or change the fraction"
                )
        draft.rows = output.rows
        special = codec.special
        statistics = token_statistics(draft.path, codec.bytes_of_tokens(), special.end_of_text, special.file_sep)
        verdict = contract.require(statistics, where=source)
        contract.write_report(verdict, draft.path)
        draft.statistics = {
            **output.statistics(),
            **decided,
            "vocabulary_size": codec.vocabulary_size,
            "tokenizer_digest": inputs[1].digest,
            **({INITIAL: inputs[1].statistics[INITIAL]} if INITIAL in inputs[1].statistics else {}),
        }
    assert draft.manifest is not None
    return draft.manifest


if __name__ == "__main__":
    main("tokenize", TokenizeConfig, run)
