"""Canaries: equal for equal seeds, planted where they are said to be, and what redaction makes of each kind."""

from collections import Counter

import polars as pl
import pytest

from components.data.canaries import KINDS, canaries, plant, references
from components.data.config import CleanConfig
from components.data.documents import document_id
from components.data.redact import find_all, replace

TEXTS = [f"def function_{number}():\n    return {number}" for number in range(20)]


def documents() -> pl.DataFrame:
    sizes = [len(text) for text in TEXTS]
    return pl.DataFrame({"id": [document_id(text) for text in TEXTS], "text": TEXTS, "bytes": sizes, "path": TEXTS})


def test_equal_seeds_give_equal_canaries_and_more_of_them_begin_with_fewer() -> None:
    assert canaries(5, 1) == canaries(9, 1)[:5]
    assert not {each.secret for each in canaries(9, 1)} & {each.secret for each in canaries(9, 2)}
    found = canaries(30, 1)
    assert len({each.secret for each in found}) == len({each.prefix for each in found}) == 30
    assert Counter(each.kind for each in found) == dict.fromkeys(KINDS, 10)


def test_references_differ_from_their_canary_in_the_secret_alone() -> None:
    for canary in canaries(3, 0):
        others = references(canary, 40, 0)
        assert len({canary.secret, *(each.secret for each in others)}) == 41
        assert {each.prefix for each in others} == {canary.prefix}
        assert {len(each.secret) for each in others} == {len(canary.secret)}


def test_each_canary_stands_at_the_end_of_as_many_documents_as_copies() -> None:
    planted = canaries(4, 3)
    found = plant(documents(), planted, copies=5, seed=3)
    assert found.equals(plant(documents(), planted, copies=5, seed=3))
    assert not found.equals(plant(documents(), planted, copies=5, seed=4))
    for canary in planted:
        assert found["text"].str.contains(f"\n{canary.text}", literal=True).sum() == 5
    changed = found["text"] != documents()["text"]
    assert 0 < changed.sum() < len(TEXTS)
    for each, before in zip(found.iter_rows(named=True), TEXTS, strict=True):
        assert each["text"].startswith(before)
        assert each["id"] == document_id(each["text"])
        assert each["bytes"] == len(each["text"].encode())
        assert each["path"] == before


def test_more_copies_than_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="21 copies of a canary need as many documents, found 20"):
        plant(documents(), canaries(1, 0), copies=21, seed=0)


def test_redaction_takes_keys_and_addresses_and_leaves_what_no_rule_knows() -> None:
    planted = canaries(30, 0)
    texts = plant(documents(), planted, copies=2, seed=0)["text"]
    left = texts.to_list()
    for row, spans in find_all(texts, CleanConfig().redact):
        left[row] = replace(texts[row], spans)
    whole = "".join(left)
    assert Counter(each.kind for each in planted if each.secret in whole) == {"account": 10}
