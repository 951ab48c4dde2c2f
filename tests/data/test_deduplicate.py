"""Near duplicates against exact Jaccard similarity, computed another way, and clusters against a plain search."""

import random
import re
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.data.deduplicate import (
    Near,
    connected_components,
    first_occurrences,
    near_duplicates,
    shingle_hashes,
    signatures,
    similar_pairs,
    word_hashes,
)

SHINGLE = 5
TEXT = st.text(alphabet=st.sampled_from("ab_9 \n.()é≠😀"), max_size=60)


def words(text: str) -> list[bytes]:
    return re.findall(rb"[A-Za-z0-9_\x80-\xff]+", text.encode())


def shingles(text: str, size: int = SHINGLE) -> set[tuple[bytes, ...]]:
    found = words(text)
    return {tuple(found[start : start + size]) for start in range(len(found) - size + 1)}


def jaccard(first: str, second: str) -> float:
    one, two = shingles(first), shingles(second)
    return len(one & two) / len(one | two) if one | two else 0.0


def rows_of(hashes: NDArray[np.uint64], offsets: NDArray[np.int64]) -> list[list[int]]:
    return [hashes[start:stop].tolist() for start, stop in pairwise(offsets)]


@given(st.lists(TEXT, max_size=8))
def test_equal_words_have_equal_hashes_and_other_words_others(texts: list[str]) -> None:
    found = rows_of(*word_hashes(texts))
    wanted = [words(text) for text in texts]
    assert [len(row) for row in found] == [len(row) for row in wanted]
    pairs = {
        (word, each) for row, hashes in zip(wanted, found, strict=True) for word, each in zip(row, hashes, strict=True)
    }
    assert len(pairs) == len({word for word, _ in pairs}) == len({each for _, each in pairs})


@given(st.lists(TEXT, max_size=8), st.integers(1, 4))
def test_shingles_are_those_of_each_text_alone(texts: list[str], size: int) -> None:
    found = rows_of(*shingle_hashes(texts, size))
    sets = [shingles(text, size) for text in texts]
    assert [len(set(row)) for row in found] == [len(each) for each in sets]
    for one, first in zip(found, sets, strict=True):
        for two, second in zip(found, sets, strict=True):
            assert len(set(one) & set(two)) == len(first & second)


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_a_signature_does_not_depend_on_the_company(texts: list[str]) -> None:
    together = signatures(texts, shingle_tokens=2, num_permutations=16, seed=0)
    alone = [signatures([text], shingle_tokens=2, num_permutations=16, seed=0)[0] for text in texts]
    assert np.array_equal(together, np.stack(alone))


def corpus(seed: int = 0) -> list[str]:
    """Families of texts, each with members that share from nearly none to nearly all of its lines."""
    source = random.Random(seed)
    texts = []
    for family in range(40):
        lines = [" ".join(f"word{source.randrange(5000)}" for _ in range(8)) for _ in range(60)]
        texts.append("\n".join(lines))
        for changed in (1, 3, 6, 12, 24, 50):
            member = list(lines)
            for line in source.sample(range(60), changed):
                member[line] = f"changed {family} {changed} {line} " + " ".join(
                    f"other{source.randrange(5000)}" for _ in range(5)
                )
            texts.append("\n".join(member))
    source.shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def found() -> tuple[list[str], Near, NDArray[np.uint32]]:
    texts = corpus()
    matrix = signatures(texts, shingle_tokens=SHINGLE, num_permutations=128, seed=0)
    return texts, near_duplicates(matrix, np.arange(len(texts)), rows_per_band=4, similarity=0.75), matrix


def test_estimates_are_near_exact_jaccard(found: tuple[list[str], Near, NDArray[np.uint32]]) -> None:
    texts, _, matrix = found
    source = random.Random(1)
    errors = []
    for _ in range(400):
        one, two = source.sample(range(len(texts)), 2)
        errors.append(float((matrix[one] == matrix[two]).mean()) - jaccard(texts[one], texts[two]))
    # the standard error of 128 values is at most 0.044
    assert abs(np.mean(errors)) < 0.01 and np.abs(errors).max() < 0.2


def test_what_is_dropped_is_alike_and_what_stays_is_not(found: tuple[list[str], Near, NDArray[np.uint32]]) -> None:
    """With the bound at 0.75, exact pairs above 0.9 never both stay, and nothing below 0.6 goes."""
    texts, near, _ = found
    stays = near.kept == np.arange(len(texts))
    assert 40 <= stays.sum() < len(texts)
    for row in np.flatnonzero(~stays):
        assert stays[near.kept[row]]
        assert jaccard(texts[row], texts[near.kept[row]]) > 0.6
    staying = np.flatnonzero(stays).tolist()
    sets = {row: shingles(texts[row]) for row in staying}
    for place, one in enumerate(staying):
        for two in staying[place + 1 :]:
            common = len(sets[one] & sets[two])
            assert common <= 0.9 * len(sets[one] | sets[two])


def test_clusters_hold_together_what_is_alike(found: tuple[list[str], Near, NDArray[np.uint32]]) -> None:
    _, near, _ = found
    assert np.array_equal(near.cluster[near.kept], near.cluster)
    assert np.array_equal(near.cluster[near.cluster], near.cluster)
    assert (near.cluster <= np.arange(len(near.cluster))).all()


def test_the_preferred_document_stays() -> None:
    text = " ".join(f"w{number}" for number in range(200))
    matrix = signatures([text, text + " x", text + " y z"], shingle_tokens=5, num_permutations=64, seed=0)
    for preferred in range(3):
        rank = np.array([(row - preferred) % 3 for row in range(3)])
        near = near_duplicates(matrix, rank, rows_per_band=4, similarity=0.75)
        assert near.kept.tolist() == [preferred] * 3 and near.cluster.tolist() == [0, 0, 0]


def test_the_ends_of_a_chain_may_both_stay() -> None:
    base = [f"w{number}" for number in range(400)]
    texts = [" ".join(base[start : start + 300]) for start in (0, 40, 80)]
    assert jaccard(texts[0], texts[1]) > 0.7 > 0.6 > jaccard(texts[0], texts[2])
    matrix = signatures(texts, shingle_tokens=SHINGLE, num_permutations=512, seed=0)
    near = near_duplicates(matrix, np.arange(3), rows_per_band=4, similarity=0.68)
    assert near.cluster.tolist() == [0, 0, 0] and near.kept.tolist() == [0, 0, 2]


def test_texts_without_a_shingle_are_nobodys_duplicates() -> None:
    matrix = signatures(["", "a b", "a b", "é"], shingle_tokens=5, num_permutations=16, seed=0)
    near = near_duplicates(matrix, np.arange(4), rows_per_band=4, similarity=0.5)
    assert near.kept.tolist() == near.cluster.tolist() == [0, 1, 2, 3]


def test_no_documents_give_no_duplicates() -> None:
    matrix = signatures([], shingle_tokens=5, num_permutations=16, seed=0)
    assert near_duplicates(matrix, np.zeros(0, np.int64), rows_per_band=4, similarity=0.5).kept.size == 0


def test_a_thousand_copies_are_linked_without_half_a_million_pairs() -> None:
    text = " ".join(f"w{number}" for number in range(50))
    matrix = np.repeat(signatures([text], shingle_tokens=5, num_permutations=64, seed=0), 1000, axis=0)
    assert similar_pairs(matrix, rows_per_band=4, similarity=0.9).shape == (999, 2)


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_components_agree_with_a_plain_search(pairs: list[tuple[int, int]]) -> None:
    neighbours: dict[int, set[int]] = {row: {row} for row in range(30)}
    for one, two in pairs:
        neighbours[one].add(two)
        neighbours[two].add(one)
    wanted = []
    for row in range(30):
        reached, todo = {row}, [row]
        while todo:
            fresh = neighbours[todo.pop()] - reached
            reached |= fresh
            todo.extend(fresh)
        wanted.append(min(reached))
    found = connected_components(np.array(pairs, np.int64).reshape(-1, 2), 30)
    assert found.tolist() == wanted


def test_first_occurrences() -> None:
    assert first_occurrences(pl.Series(["b", "a", "b", "a", "c"])).to_list() == [True, True, False, False, True]
