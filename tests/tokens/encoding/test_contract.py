"""The suite `tokens` finds what is wrong with token files that were written badly on purpose."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.core.errors import DataError
from components.core.events import Events
from components.data.contracts.contract import Contract
from components.tokens.config import TokensContract
from components.tokens.encoding.special import END_OF_TEXT_ID, FILE_SEP_ID
from components.tokens.encoding.token_contract import split_statistics, token_statistics
from components.tokens.shards.token_store import SPLITS, TokenWriter, documents_path

TOKEN_BYTES = np.where(np.arange(100) == END_OF_TEXT_ID, 0, 3)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))


def described(texts: dict[str, list[int]], clusters: dict[str, str] | None = None) -> pl.DataFrame:
    """What tokenize says of documents, by name, each of so many tokens of three bytes."""
    return pl.DataFrame(
        {
            "id": list(texts),
            "path": [f"{name}.py" for name in texts],
            "language": ["python"] * len(texts),
            "bytes": [3 * len(tokens) for tokens in texts.values()],
            "encoded_bytes": [3 * len(tokens) - 3 for tokens in texts.values()],
            "tokens": [len(tokens) for tokens in texts.values()],
            "cluster": [(clusters or {}).get(name, name) for name in texts],
        }
    )


def rules(statistics: pl.DataFrame, config: TokensContract | None = None) -> dict[str, list[str]]:
    """Documents by the rule that they break; rules of the whole table have none."""
    contract = Contract("tokens", config or TokensContract(), Events("tokenize"), {"largest_id": 99})
    verdict = contract.judge(statistics)
    found: dict[str, list[str]] = {rule: [] for rule in verdict.failed}
    for row, rule in verdict.rows.select("row", "rule").rows():
        found[rule].append(statistics["id"][row])
    return found


def test_every_fault_of_a_token_file_is_found(tmp_path: Path) -> None:
    end = END_OF_TEXT_ID
    train = {"good": [5, 6, 7, end], "large": [5, 100, end], "open": [5, 6, 7], "again": [5, end], "near": [9, end]}
    train |= {"cut": [5, 6, end], "more": [7, end], "spaced": [8, end]}
    held_out = {"held": [8, end], "again": [5, end]}
    clusters = {"near": "c", "held": "c"}
    for split, documents in zip(SPLITS, (train, held_out), strict=True):
        with TokenWriter(tmp_path, split, vocabulary_size=128, shard_tokens=5) as writer:
            writer.append(
                np.concatenate(list(documents.values())), np.array([len(each) for each in documents.values()])
            )
        frame = described(documents, clusters)
        frame = frame.with_columns(bytes=pl.when(pl.col("id") == "good").then(4000).otherwise(pl.col("bytes")))
        of_text = {
            "cut": 3_000_000,
            "more": 1,
            "spaced": 2,
            "open": 9,
        }  # the last has the space that a tokenizer put before it
        frame = frame.with_columns(encoded_bytes=pl.col("id").replace_strict(of_text, default=pl.col("encoded_bytes")))
        frame.write_parquet(documents_path(tmp_path, split))
    found = rules(token_statistics(tmp_path, TOKEN_BYTES))
    assert found == {
        "id_repeated": ["again", "again"],
        "id_outside_vocabulary": ["large"],
        "end_missing": ["open"],
        "bytes_per_token_out_of_range": ["good", "cut"],
        "text_not_covered": ["cut", "more"],
        "cluster_in_both_splits": ["again", "near", "held", "again"],
    }


def test_offsets_that_fall_or_leave_a_document_nothing_are_found() -> None:
    documents = described({"a": [5, 0], "b": [6, 0], "c": [7, 0]})
    tokens = np.array([5, 0, 6, 0, 7, 0], np.uint16)
    held_out = split_statistics(documents, tokens, np.array([0, 2, 4, 6]), TOKEN_BYTES, is_validation=True)
    for offsets in ([0, 4, 2, 6], [0, 2, 2, 6], [0, 3, 4, 6]):
        statistics = split_statistics(documents, tokens, np.array(offsets), TOKEN_BYTES, is_validation=False)
        statistics = pl.concat([statistics, held_out.with_columns(id="id" + pl.col("id"))])
        found = rules(statistics.with_columns(in_both_splits=False), TokensContract(max_validation_share=0.5))
        assert "offsets_mismatch" in found and set(found["offsets_mismatch"]) <= {"a", "b", "c"}, offsets


def test_a_training_file_may_end_where_the_next_one_begins_and_stands_for_its_path() -> None:
    """One byte of text below a path; a held-out document ends with the end of the text."""
    documents = described({"a": [5] * 10 + [FILE_SEP_ID]}).with_columns(bytes=1, encoded_bytes=30)
    tokens, offsets = np.array([5] * 10 + [FILE_SEP_ID], np.uint16), np.array([0, 11])
    token_bytes = np.where(np.arange(100) == FILE_SEP_ID, 0, TOKEN_BYTES)
    for held_out, broken in ((False, {}), (True, {"end_missing": ["a", "id"]})):
        statistics = split_statistics(
            documents, tokens, offsets, token_bytes, is_validation=held_out, file_sep=FILE_SEP_ID
        )
        both = pl.concat([statistics, statistics.with_columns(id=pl.lit("id"))]).with_columns(in_both_splits=False)
        bounds = TokensContract(min_validation_share=0.0, max_validation_share=1.0)
        assert rules(both, bounds) == broken
    assert statistics["bytes_per_token"].item() == pytest.approx(30 / 11)


def test_a_share_of_held_out_documents_that_is_off_stops_the_stage() -> None:
    tokens = np.array([5, 0, 6, 0, 7, 0], np.uint16)
    offsets = np.array([0, 2, 4, 6])
    both = [
        split_statistics(
            described({name: [5, 0] for name in names}), tokens, offsets, TOKEN_BYTES, is_validation=held_out
        )
        for names, held_out in (("abc", False), ("def", True))
    ]
    statistics = pl.concat(both).with_columns(in_both_splits=False)
    assert rules(statistics, TokensContract(max_validation_share=0.5)) == {}
    contract = Contract("tokens", TokensContract(max_validation_share=0.4), Events("tokenize"), {"largest_id": 99})
    with pytest.raises(
        DataError, match=r"tokens: fails its suite tokens \(validation_share 1\); found 0\.5; needed: The"
    ):
        contract.require(statistics, where=Path("tokens"))
