"""The table of a contract says what its report says, what failed first."""

import json
from pathlib import Path

import polars as pl
import pytest

from components.core.events import Events
from components.data.config import FeedbackContract
from components.data.contracts.contract import REPORT, Contract
from components.data.documents.feedback_rows import SCHEMA, feedback_statistics
from flows.running.contract_artifacts import rows


def test_a_report_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    events = pl.DataFrame({"event_id": ["event-001", "event-002"], "kind": ["accept", "maybe"]})
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in SCHEMA.items() if name not in events.columns]
    contract = Contract("feedback", FeedbackContract(), Events("collect"))
    verdict = contract.judge(feedback_statistics(events.with_columns(missing).select(SCHEMA.names())))
    table = rows(json.loads((contract.docs / REPORT).read_text()))
    assert [each["rule"] for each in table if each["verdict"] == "fails"] == verdict.failed
    assert [each["verdict"] for each in table] == sorted(each["verdict"] for each in table)
    (kind,) = (each for each in table if each["rule"] == "kind_unknown")
    assert kind["judged"] == 2 and kind["failing"] == 1 and kind["wanted"] == "An event accepts or rejects."
