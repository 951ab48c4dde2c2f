"""The token store: whatever the shards, the same tokens; every token knows its document, every document its tokens."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import ArtifactError
from components.tokens.shards.token_store import (
    BLOCK_TOKENS,
    TokenStore,
    TokenWriter,
)


def write(directory: Path, lengths: list[int], *, shard_tokens: int = 1000, vocabulary_size: int = 4096) -> TokenStore:
    """Documents of these lengths, in two appends; token t of the split is t modulo the vocabulary."""
    tokens = np.arange(sum(lengths), dtype=np.uint32) % vocabulary_size
    half = len(lengths) // 2
    cut = sum(lengths[:half])
    with TokenWriter(directory, "train", vocabulary_size=vocabulary_size, shard_tokens=shard_tokens) as writer:
        writer.append(tokens[:cut], np.array(lengths[:half], dtype=np.int64))
        writer.append(tokens[cut:], np.array(lengths[half:], dtype=np.int64))
    assert sum(rows for name, rows in writer.rows.items() if name.endswith(".tokens.npy")) == len(tokens)
    return TokenStore(directory, "train")


def test_a_shard_that_the_manifest_does_not_list_is_not_read(tmp_path: Path) -> None:
    """Put there after the artifact was checked."""
    out = tmp_path / "tokens"
    with artifact.create(out, stage="tokenize", config=StepConfig(), inputs=[], code=Path(artifact.__file__)) as draft:
        write(draft.path, [900, 600])
    shutil.copyfile(out / "train-00000.tokens.npy", out / "train-00002.tokens.npy")
    store = TokenStore(out, "train")
    assert [len(shard) for shard in store.shards] == [1000, 500] and store.num_tokens == 1500


@given(st.lists(st.integers(1, 3 * BLOCK_TOKENS), min_size=1, max_size=12), st.integers(1, 5000), st.data())
@settings(max_examples=60, deadline=None)
def test_every_token_and_its_document(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], shard_tokens: int, data: st.DataObject
) -> None:
    """Against searchsorted over the offsets, and against the tokens as one array."""
    store = write(tmp_path_factory.mktemp("store"), lengths, shard_tokens=max(shard_tokens, sum(lengths) // 50))
    tokens = np.arange(sum(lengths)) % 4096
    places = np.arange(len(tokens))
    owners = np.searchsorted(np.cumsum(lengths), places, side="right")
    assert np.array_equal(store.documents_at(places), owners)
    one = data.draw(st.integers(0, len(tokens) - 1))
    assert store.document_at(one) == owners[one]
    start = data.draw(st.integers(0, len(tokens)))
    stop = data.draw(st.integers(start, len(tokens)))
    assert store.read(start, stop).tolist() == tokens[start:stop].tolist()
    for row in range(len(lengths)):
        assert store.document(row).tolist() == tokens[owners == row].tolist()
    assert store.counts(4096).tolist() == np.bincount(tokens, minlength=4096).tolist()


def test_a_sample_is_spread_over_the_split(tmp_path: Path) -> None:
    """Pieces from the first token to the last that do not overlap; the whole where it is no more."""
    store = write(tmp_path, [700] * 10, shard_tokens=900, vocabulary_size=60_000)
    assert store.sample(7000).tolist() == store.sample(9999).tolist() == list(range(7000))
    found = store.sample(1000, pieces=4).tolist()
    assert len(found) == len(set(found)) == 1000
    assert found[:250] == list(range(250)) and found[-250:] == list(range(6750, 7000))


def test_documents_of_one_token_are_found_in_bounded_steps(tmp_path: Path) -> None:
    """The hardest block: as many documents as tokens."""
    store = write(tmp_path, [1] * 5000 + [BLOCK_TOKENS * 5])
    assert store.documents_at(np.arange(5001)).tolist() == list(range(5001))
    assert store.document_at(store.num_tokens - 1) == 5000


def test_a_read_inside_a_shard_is_a_view(tmp_path: Path) -> None:
    store = write(tmp_path, [2500], shard_tokens=1000)
    assert [len(shard) for shard in store.shards] == [1000, 1000, 500]
    assert np.shares_memory(store.read(1000, 2000), store.shards[1])
    assert store.read(999, 1001).tolist() == [999, 1000]


def test_tokens_outside_are_refused(tmp_path: Path) -> None:
    store = write(tmp_path, [3, 4])
    for outside in (-1, 7):
        with pytest.raises(IndexError):
            store.document_at(outside)
    for start, stop in ((-1, 2), (5, 8), (4, 3)):
        with pytest.raises(IndexError):
            store.read(start, stop)
    with pytest.raises(IndexError):
        store.document(2)


@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(65536, np.uint16), (65537, np.uint32)])
def test_the_type_is_the_smallest_that_numbers_the_vocabulary(
    tmp_path: Path, vocabulary_size: int, dtype: type[np.integer]
) -> None:
    store = write(tmp_path, [vocabulary_size], vocabulary_size=vocabulary_size, shard_tokens=50_000)
    assert {shard.dtype for shard in store.shards} == {np.dtype(dtype)}
    assert int(store.read(0, vocabulary_size)[-1]) == vocabulary_size - 1


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    write(tmp_path, [3, 4], shard_tokens=2)
    with pytest.raises(ArtifactError, match="validation cannot be read"):
        TokenStore(tmp_path, "validation")
    np.save(tmp_path / "train.offsets.npy", np.array([0, 3, 9]))
    with pytest.raises(ArtifactError, match=r"train\.offsets\.npy: ends at 9, 7 tokens were found; run tokenize again"):
        TokenStore(tmp_path, "train")
    write(tmp_path, [3, 4], shard_tokens=2)
    (tmp_path / "train-00001.tokens.npy").unlink()
    with pytest.raises(ArtifactError, match="ends at 7, 5 tokens were found"):
        TokenStore(tmp_path, "train")
    np.save(tmp_path / "train-00001.tokens.npy", np.array([1], dtype=np.uint16))
    np.save(tmp_path / "train-00003.tokens.npy", np.array([1, 2], dtype=np.uint16))
    with pytest.raises(ArtifactError, match=r"found shards of \[1, 2\] tokens for train, needed one length"):
        TokenStore(tmp_path, "train")
