"""Canaries: the same for everybody, planted where they are said to be, and counted."""

from collections import Counter

import polars as pl

from components.data.documents.canaries import KINDS, canaries, copies_in, references
from components.data.sources import canaries as canary_source
from components.data.sources.config import CanarySource


def test_more_canaries_begin_with_fewer_and_none_is_like_another() -> None:
    found = canaries(30)
    assert canaries(5) == found[:5]
    assert len({each.secret for each in found}) == len({each.prefix for each in found}) == 30
    assert Counter(each.kind for each in found) == dict.fromkeys(KINDS, 10)


def test_references_differ_from_their_canary_in_the_secret_alone() -> None:
    for canary in canaries(3):
        others = references(canary, 40)
        assert len({canary.secret, *(each.secret for each in others)}) == 41
        assert {each.prefix for each in others} == {canary.prefix}
        assert {len(each.secret) for each in others} == {len(canary.secret)}


def test_a_corpus_without_planted_documents_has_none() -> None:
    found = copies_in([["def f():\n    pass\n"], []], canaries(3))
    assert found == {kind: {"documents": 0, "with_secret": 0} for kind in KINDS}
    assert copies_in([["x = 1\n"]], ()) == {}


def test_documents_of_a_canary_hold_it_once_and_their_path_names_it() -> None:
    batch = next(canary_source.read(CanarySource(count=3, copies=2))).documents
    assert batch["text"].n_unique() == 6 and not batch["text"].str.contains('"""', literal=True).any()
    for canary in canaries(3):
        mine = batch.filter(pl.col("path").str.starts_with(f"{canary.name}/"))
        assert mine["text"].str.count_matches(canary.text, literal=True).to_list() == [1, 1]
