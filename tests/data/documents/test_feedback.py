"""The suite `feedback` by both of its judges; of a user's events the newest count, up to the cap."""

from pathlib import Path

import polars as pl

from components.core.events import Events
from components.data.config import FeedbackContract
from components.data.contracts.contract import Contract
from components.data.contracts.rules import violations
from components.data.documents.feedback_rows import SCHEMA, feedback_statistics


def event(number: int, **columns: object) -> dict[str, object]:
    return {
        "event_id": f"event-{number:03}",
        "kind": "accept",
        "request_id": f"request-{number}",
        "model_digest": "a" * 64,
        "user": f"user-{number}",
        "at": 1_790_000_000.0 + number,
        "prompt": "def f():",
        "completion": "    return 1",
    } | columns


BAD: dict[str, dict[str, object]] = {
    "event_id_malformed": {"event_id": "a b"},
    "event_id_missing": {"event_id": None},
    "kind_missing": {"kind": None},
    "kind_unknown": {"kind": "maybe"},
    "request_missing": {"request_id": None},
    "model_malformed": {"model_digest": "v1"},
    "model_missing": {"model_digest": None},
    "user_missing": {"user": None},
    "time_missing": {"at": None},
    "time_out_of_range": {"at": 12.0},
    "prompt_empty": {"prompt": " "},
    "completion_empty": {"completion": None},
    "text_too_long": {"prompt": "x" * 2000},
}


def test_every_fault_of_an_event_is_found_by_both_judges(tmp_path: Path) -> None:
    rows = [event(0), *(event(number, **bad) for number, bad in enumerate(BAD.values(), 1))]
    # One user answers a request twice: the newer one stands.
    rows += [event(50, user="u", request_id="r"), event(51, user="u", request_id="r", kind="reject")]
    statistics = feedback_statistics(pl.DataFrame(rows, schema=SCHEMA))
    config = FeedbackContract(max_event_bytes=1000)
    quick = violations(statistics, "feedback", config)
    expected = [(number, rule) for number, rule in enumerate(BAD, 1)] + [(14, "event_repeated")]
    assert quick.select("row", "rule").rows() == expected
    assert Contract("feedback", config, Events("feedback")).judge(statistics).rows.rows() == quick.rows()


def test_of_a_busy_user_the_newest_events_count() -> None:
    rows = [event(number, user="busy") for number in range(5)] + [event(9)]
    statistics = feedback_statistics(pl.DataFrame(rows, schema=SCHEMA))
    found = violations(statistics, "feedback", FeedbackContract(max_events_per_user=3))
    assert found.rows() == [(0, "user_over_cap", "5"), (1, "user_over_cap", "4")]
