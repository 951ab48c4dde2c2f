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

from benchmarks.brute_force import exact_pairs, found_clusters
from benchmarks.installed import sample
from components.data.cleaning import deduplicate
from components.data.cleaning.deduplicate import (
    band_hashes,
    candidate_probability,
    connected_components,
    estimate_bound,
    jaccard,
    licence_rank,
    near_pairs,
    preference,
    shingle_hashes,
    shingle_sets,
    signatures,
    staying,
    word_hashes,
)
from components.data.config import DuplicateConfig

SHINGLE = 5
TEXT = st.text(alphabet=st.sampled_from("ab_9 \n.()é≠😀"), max_size=60)


def words(text: str) -> list[bytes]:
    return re.findall(rb"[A-Za-z0-9_\x80-\xff]+", text.encode())


def shingles(text: str, size: int = SHINGLE) -> set[tuple[bytes, ...]]:
    found = words(text)
    return {tuple(found[start : start + size]) for start in range(len(found) - size + 1)}


def similarity(first: str, second: str) -> float:
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


def test_many_texts_are_hashed_like_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are taken together up to a size, and one may be larger than that."""
    texts = ["a b c " * count for count in (1, 50, 3, 0, 400, 2, 9)]
    whole = shingle_hashes(texts, 2)
    monkeypatch.setattr(deduplicate, "_CHUNK_CHARACTERS", 100)
    cut = shingle_hashes(texts, 2)
    assert rows_of(*whole) == rows_of(*cut) and rows_of(*word_hashes(texts)) == [
        each for text in texts for each in rows_of(*word_hashes([text]))
    ]


def pair_of_sets(source: random.Random, of_similarity: float, words: int = 300) -> tuple[str, str]:
    """Two texts whose sets of words have about this Jaccard similarity."""
    common = round(words * of_similarity)
    every = source.sample(range(10**9), words)
    alone = (words - common) // 2
    return tuple(
        " ".join(f"w{each}" for each in [*every[:common], *every[common + part * alone : common + (part + 1) * alone]])
        for part in (0, 1)
    )  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("bands", "rows_per_band", "of_similarity"), [(32, 4, 0.3), (32, 4, 0.45), (16, 8, 0.6), (16, 8, 0.7), (16, 8, 0.8)]
)
def test_candidates_come_as_often_as_the_s_curve_says(bands: int, rows_per_band: int, of_similarity: float) -> None:
    source, count = random.Random(f"{bands} {of_similarity}"), 400
    pairs = [pair_of_sets(source, of_similarity) for _ in range(count)]
    exact = [jaccard(*shingle_sets(list(pair), 1)) for pair in pairs]
    wanted = np.array(
        [
            candidate_probability(each, num_permutations=bands * rows_per_band, rows_per_band=rows_per_band)
            for each in exact
        ]
    )
    matrix = signatures(
        [text for pair in pairs for text in pair], shingle_tokens=1, num_permutations=bands * rows_per_band, seed=3
    )
    hashes, rows = band_hashes(matrix, rows_per_band)
    found = np.concatenate(
        list(near_pairs(hashes, rows, matrix, np.arange(len(matrix)), rows_per_band=rows_per_band, bound=0.0))
    )
    met = {(int(one), int(two)) for one, two in found if one // 2 == two // 2}
    # five standard errors of a count of 400 draws
    assert abs(len(met) - wanted.sum()) < 5 * np.sqrt((wanted * (1 - wanted)).sum()) + 1
    assert len(found) == len({tuple(pair) for pair in found.tolist()}), "a pair came from two bands"


def test_the_curve_of_the_default_parameters() -> None:
    """The table in the module's docstring."""
    text = deduplicate.__doc__ or ""
    names, values = (
        re.findall(r"[\d.]+", line) for line in re.findall(r"^    (?:s|probability) .*$", text, re.MULTILINE)
    )
    config = DuplicateConfig()
    for name, value in zip(names, values, strict=True):
        wanted = candidate_probability(
            float(name), num_permutations=config.num_permutations, rows_per_band=config.rows_per_band
        )
        digits = len(value.partition(".")[2])
        assert round(wanted, digits) == float(value), name


def test_estimates_are_near_exact_jaccard() -> None:
    texts = corpus()
    matrix = signatures(texts, shingle_tokens=SHINGLE, num_permutations=128, seed=0)
    source = random.Random(1)
    errors = []
    for _ in range(400):
        one, two = source.sample(range(len(texts)), 2)
        errors.append(float((matrix[one] == matrix[two]).mean()) - similarity(texts[one], texts[two]))
    # the standard error of 128 values is at most 0.044
    assert abs(np.mean(errors)) < 0.01 and np.abs(errors).max() < 0.2


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_jaccard_is_that_of_sets(one: set[int], two: set[int]) -> None:
    wanted = len(one & two) / len(one | two) if one and two else 0.0
    assert jaccard(np.array(sorted(one), np.uint64), np.array(sorted(two), np.uint64)) == pytest.approx(wanted)


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


def test_a_family_of_texts_keeps_none_that_are_near_and_drops_none_that_are_not() -> None:
    texts, config = corpus(), DuplicateConfig()
    clusters, kept = found_clusters(texts, config)
    truth = exact_pairs(texts, config.shingle_tokens, config.similarity)
    assert len(truth) > 150 and 50 < len(kept) < len(texts)
    assert all((min(pair), max(pair)) in truth for pair in kept.items())
    assert all(clusters[one] == clusters[two] for one, two in truth)
    assert not [pair for pair in truth if not {*pair} & {*kept}], "both of two near duplicates stayed"


def test_recall_and_precision_on_real_files() -> None:
    """All pairs of real files, compared exactly by other code: the goals are 0.95 and 0.99."""
    packages = ("trl", "pyarrow", "dateparser", "pydantic", "openai")
    texts, config = sample(1500, packages=packages, max_bytes=20_000), DuplicateConfig()
    truth = exact_pairs(texts, config.shingle_tokens, config.similarity)
    clusters, kept = found_clusters(texts, config)
    assert len(texts) >= 1000 and len(truth) >= 50 and len(kept) >= 15
    together = sum(clusters[one] == clusters[two] for one, two in truth)
    right = sum((min(pair), max(pair)) in truth for pair in kept.items())
    assert together / len(truth) >= 0.95
    assert right / len(kept) >= 0.99


def test_the_ends_of_a_chain_both_stay() -> None:
    """Each of five texts is near the next and no other: the odd ones stay, the whole is one cluster."""
    lines = [" ".join(f"w{line:02}x{word}" for word in range(8)) for line in range(60)]
    texts = ["\n".join(lines[5 * step : 5 * step + 40]) + f"\n# {'long ' * (5 - step)}" for step in range(5)]
    near = exact_pairs(texts, 5, 0.7)
    assert set(near) == {(0, 1), (1, 2), (2, 3), (3, 4)}
    clusters, kept = found_clusters(texts, DuplicateConfig(keep=("longest",)))
    assert len(set(clusters)) == 1
    assert kept == {1: 0, 3: 2}


def test_a_large_bucket_is_compared_through_its_best() -> None:
    """A thousand copies are linked to the best of them without half a million pairs."""
    text = " ".join(f"w{number}" for number in range(50))
    matrix = np.repeat(signatures([text], shingle_tokens=5, num_permutations=64, seed=0), 1000, axis=0)
    hashes, rows = band_hashes(matrix, 4)
    rank = (np.arange(1000) - 700) % 1000
    found = list(near_pairs(hashes, rows, matrix, rank, rows_per_band=4, bound=0.5))
    pairs = np.unique(np.concatenate(found), axis=0)
    assert len(found) == 16 and pairs.shape == (999, 2)
    assert (pairs == 700).any(axis=1).all()
    assert (staying(pairs, rank) == 700).all()


def test_texts_without_a_shingle_are_nobodys_duplicates() -> None:
    clusters, kept = found_clusters(["", "a b", "a  b", "é"], DuplicateConfig())
    assert clusters == [0, 1, 2, 3] and not kept


def documents(rows: list[tuple[str, str, str, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["id", "path", "licence", "source", "bytes"], orient="row")


def test_who_stays_is_decided_by_the_criteria_in_their_order() -> None:
    found = documents(
        [
            ("a", "long/path.py", "MIT", "web", 10),
            ("b", "b.py", "Apache-2.0", "own", 99),
            ("c", "c.py", "MIT OR Apache-2.0", "own", 20),
            ("d", "dd.py", "MIT AND GPL-3.0-only", "own", 30),
            ("d", "d.py", "LicenseRef-Unheard", "", 30),
        ]
    )
    config = DuplicateConfig(licences=("MIT", "Apache-2.0"), sources=("own",))

    def order(*keep: str) -> str:
        rank = preference(found, config.model_copy(update={"keep": keep}))
        return "".join(np.array(["a", "b", "c", "d", "e"])[np.argsort(rank)])

    assert order("licence", "source") == "cabde"
    assert order("source", "longest") == "bdcea"
    assert order("longest") == "bedca"
    assert order("shortest_path") == "bcdea".replace("de", "ed")
    assert order() == "abced"


def test_licence_rank() -> None:
    order = ("MIT", "Apache-2.0")
    ranks = {
        each: licence_rank(each, order)
        for each in ("MIT", "Apache-2.0", "MIT AND Apache-2.0", "Zlib OR MIT", "Zlib", "?")
    }
    assert list(ranks.values()) == [0, 1, 1, 0, 2, 2]


def test_the_margin_lies_three_standard_errors_below() -> None:
    assert estimate_bound(0.7, 128) == pytest.approx(0.7 - 3 * (0.7 * 0.3 / 128) ** 0.5)


PAIRS = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)).filter(lambda pair: pair[0] != pair[1]), max_size=60)


@given(PAIRS, st.permutations(range(30)))
def test_who_stays_is_who_a_walk_by_rank_would_keep(pairs: list[tuple[int, int]], rank: list[int]) -> None:
    neighbours: dict[int, set[int]] = {row: set() for row in range(30)}
    for one, two in pairs:
        neighbours[one].add(two)
        neighbours[two].add(one)
    wanted = list(range(30))
    stays: set[int] = set()
    for row in sorted(range(30), key=rank.__getitem__):
        if near := neighbours[row] & stays:
            wanted[row] = min(near, key=rank.__getitem__)
        else:
            stays.add(row)
    assert staying(np.array(pairs, np.int64).reshape(-1, 2), np.array(rank)).tolist() == wanted


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
