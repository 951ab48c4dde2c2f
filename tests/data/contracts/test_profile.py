"""The profile against rows counted by hand."""

import json

import polars as pl

from components.data.config import CheckRawConfig
from components.data.contracts.measures import document_statistics
from components.data.contracts.profile import by_reason, clusters, counted, profile, redacted, summary
from components.data.documents.document import SCHEMA
from tests.data.conftest import document

KEPT = pl.DataFrame(
    {"id": ["a", "b", "c", "d"], "path": ["a.py", "b.py", "c.py", "d.py"], "cluster": ["a", "a", "c", "d"]}
)
DROPS = pl.DataFrame(
    [
        ("e", "e.py", "near_duplicate", "a"),
        ("f", "f.py", "near_duplicate", "b"),
        ("g", "g.py", "near_duplicate", "c"),
        ("d", "copy/d.py", "exact_duplicate", "d.py"),
        ("h", "h.py", "syntax", "line 3"),
    ],
    schema=["id", "path", "reason", "detail"],
    orient="row",
)


def test_a_cluster_is_what_stays_and_what_went_for_it() -> None:
    found = clusters(KEPT, DROPS)
    assert (found["clusters"], found["documents"], found["sizes"]) == (2, 6, [[2, 1], [4, 1]])
    assert found["largest"][0] == {"cluster": "a", "size": 4, "kept": ["a.py", "b.py"], "dropped": ["e.py", "f.py"]}
    assert clusters(KEPT.with_columns(cluster="id"), DROPS.clear())["clusters"] == 0


def test_reasons_come_with_counts_bytes_and_examples() -> None:
    found = by_reason(DROPS.with_columns(bytes=pl.lit(10)))
    assert {reason: (each["documents"], each["bytes"]) for reason, each in found.items()} == {
        "near_duplicate": (3, 30),
        "exact_duplicate": (1, 10),
        "syntax": (1, 10),
    }
    assert list(found) == ["near_duplicate", "exact_duplicate", "syntax"]
    assert found["syntax"]["examples"] == [{"path": "h.py", "detail": "line 3"}]


def test_redactions_count_by_kind_and_by_document() -> None:
    spans = pl.DataFrame({"id": ["a", "a", "b", "a"], "kind": ["email", "email", "email", "key"]})
    found = redacted(spans, KEPT)
    assert found["documents"] == 2
    assert found["by_kind"] == {
        "email": {"redactions": 3, "documents": 2},
        "key": {"redactions": 1, "documents": 1},
    }
    assert found["most"][0] == {"id": "a", "path": "a.py", "redactions": 3}


def test_values_are_counted_and_the_rare_ones_come_together() -> None:
    rows = [document("x" * (300 - number), f"{number}.py", licence=f"L{number:03}") for number in range(250)]
    statistics = document_statistics(pl.DataFrame(rows, schema=SCHEMA), ("MIT",))
    found = counted(statistics, "licence")
    assert list(found)[:2] == ["L000", "L001"] and found["L000"] == {"documents": 1, "bytes": 300}
    assert found["(others)"] == {"documents": 50, "bytes": sum(300 - number for number in range(200, 250))}
    assert sum(each["bytes"] for each in found.values()) == statistics["text_bytes"].sum()


def test_a_profile_is_json_that_the_order_of_rows_does_not_change() -> None:
    rows = [document(f"x = {number}\n" * (number + 1), f"{number % 7}/{number}.py") for number in range(60)]
    rows.append(document(None, "null.py"))
    frame = pl.DataFrame(rows, schema=SCHEMA)
    licences = CheckRawConfig().licences
    sides = [summary(document_statistics(each, licences)) for each in (frame, frame.reverse())]
    assert json.dumps(sides[0]) == json.dumps(sides[1])
    assert sides[0]["documents"] == 61 and sides[0]["histograms"]["text_bytes"]["missing"] == 1
    assert sides[0]["largest"][0]["path"] == "3/59.py"
    empty = {"left": pl.DataFrame(schema=["path", "reason", "detail"]).cast(pl.String)}
    found = [
        profile(
            *sides,
            **empty,
            quarantine=pl.DataFrame({"path": ["q.py"], "rule": ["nul"], "value": ["1"], "bytes": [5]}),
            drops=drops,
            redactions=pl.DataFrame({"id": ["a"], "kind": ["ip"]}),
            checked=pl.DataFrame({"id": list("abcdefgh"), "bytes": [1] * 8}),
            kept=kept,
        )
        for drops, kept in ((DROPS, KEPT), (DROPS.reverse(), KEPT.reverse()))
    ]
    assert json.dumps(found[0]) == json.dumps(found[1])
    assert found[0]["quarantined"]["nul"]["bytes"] == 5 and found[0]["dropped"]["near_duplicate"]["bytes"] == 3
