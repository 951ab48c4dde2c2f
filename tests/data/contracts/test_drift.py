"""The population stability index by hand, on equal corpora, and on corpora that really moved."""

import math
import sysconfig
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.config import DriftConfig
from components.data.contracts.drift import complaint, judge, of_numbers, of_values, population_stability_index
from components.data.contracts.measures import document_statistics
from components.data.contracts.profile import histogram, summary
from components.data.documents.document import SCHEMA, document_id
from tests.data.conftest import document

CONFIG = DriftConfig(min_documents=100)


@pytest.fixture(scope="module")
def library() -> pl.DataFrame:
    """Eight hundred files of the standard library, in the order of their ids, which are hashes."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts][:800]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    rows = [document(text, path.name) for text, path in zip(texts, files, strict=True) if text]
    return pl.DataFrame(rows, schema=SCHEMA).unique("id").sort("id")


def described(frame: pl.DataFrame) -> dict[str, object]:
    return summary(document_statistics(frame, ("MIT",)))


def counts(**documents: int) -> dict[str, dict[str, int]]:
    return {name: {"documents": number, "bytes": 1} for name, number in documents.items()}


def test_the_index_is_the_formula() -> None:
    by_hand = (70.5 / 101 - 50.5 / 101) * math.log(70.5 / 50.5) + (30.5 / 101 - 50.5 / 101) * math.log(30.5 / 50.5)
    assert population_stability_index([50, 50], [70, 30]) == pytest.approx(by_hand)
    assert population_stability_index([], []) == 0


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20))
def test_the_index_is_never_negative_symmetric_and_zero_for_equals(pairs: list[tuple[int, int]]) -> None:
    one, other = [list(each) for each in zip(*pairs, strict=True)]
    found = population_stability_index(one, other)
    assert found >= 0 and found == pytest.approx(population_stability_index(other, one))
    assert population_stability_index(one, one) == 0


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=200))
def test_a_histogram_counts_every_value_once_and_names_values_that_occur(values: list[int]) -> None:
    found = histogram(pl.Series(values), "log")
    assert sum(found["counts"]) == len(values) and found["counts"][0] and found["counts"][-1]
    assert set(found["quantiles"].values()) <= {float(each) for each in values}
    assert found["quantiles"]["0"] == min(values) and found["quantiles"]["100"] == max(values)


def test_halves_of_one_corpus_have_not_drifted(library: pl.DataFrame) -> None:
    half = library.height // 2
    found = judge(described(library[:half]), described(library[half:]), CONFIG)
    assert set(found.psi) == {
        *("text_bytes", "lines", "mean_line_characters", "max_line_characters", "alphanumeric_share"),
        *("language", "licence", "source"),
    }
    assert all(value < 0.25 for value in found.psi.values()), found.psi
    assert complaint("check_clean", found, CONFIG) is None


def test_a_corpus_cut_short_has_drifted_in_its_sizes_and_not_in_its_kinds(library: pl.DataFrame) -> None:
    short = library.with_columns(pl.col("text").str.head(1200))
    short = short.with_columns(
        id=pl.Series([document_id(text) for text in short["text"]]), bytes=pl.col("text").str.len_bytes().cast(pl.Int64)
    )
    found = judge(described(library), described(short), CONFIG)
    assert {"text_bytes", "lines"} <= set(found.beyond(0.25))
    assert found.psi["language"] == found.psi["licence"] == found.psi["source"] == 0
    line = complaint("check_clean", found, CONFIG)
    assert line is not None and "population stability index text_bytes" in line and "at most 0.25" in line


def test_a_new_language_and_a_lost_licence_are_seen(library: pl.DataFrame) -> None:
    number = pl.int_range(pl.len())
    before = library.with_columns(licence=pl.when(number % 4 == 0).then(pl.lit("Apache-2.0")).otherwise("licence"))
    after = library.with_columns(language=pl.when(number % 5 == 0).then(pl.lit("go")).otherwise("language"))
    found = judge(described(before), described(after), CONFIG)
    assert set(found.beyond(0.25)) == {"language", "licence"}


def test_rare_values_count_together() -> None:
    before = counts(python=1000, **{f"a{number}": 2 for number in range(5)})
    after = counts(python=1000, **{f"b{number}": 2 for number in range(5)})
    assert of_values(before, after) == pytest.approx(0)
    assert of_values(counts(python=99), counts(python=90, go=9)) > 0.25


def test_missing_values_are_a_bin_of_their_own() -> None:
    whole = histogram(pl.Series(range(100)), "log")
    holed = histogram(pl.Series([*range(50), *[None] * 50]), "log")
    assert of_numbers(whole, whole) == 0 and of_numbers(whole, holed) > 1


def test_few_documents_are_not_judged(library: pl.DataFrame) -> None:
    found = judge(described(library), described(library[:99]), CONFIG)
    assert found.psi == {} and found.unjudged == "99 documents are fewer than min_documents 100"
