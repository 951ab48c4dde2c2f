"""A status is believed for three periods after somebody looked, and only while the gateway answers."""

from datetime import UTC, datetime, timedelta

import pytest

from components.core.config import Settings
from components.release.status import (
    EnvironmentStatus,
    Status,
    mark_stale,
    read_status,
    rows,
    status_path,
    write_status,
)
from components.serving.versions import WeightedVersion

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LIVE = EnvironmentStatus(
    name="production",
    versions=(WeightedVersion(version=1, digest="0" * 64, weight=100),),
    desired_commit="a" * 40,
    live_commit="a" * 40,
    stale=False,
    reason=None,
)


def status(seconds: float = 0, entry: EnvironmentStatus = LIVE) -> Status:
    at = NOW - timedelta(seconds=seconds)
    return Status(at=at, gateway_url="http://127.0.0.1:8000", environments=(entry,))


@pytest.mark.parametrize(
    ("seconds", "answers", "reason"),
    [
        (0, True, None),
        (44, True, None),
        (73, True, "last reconciled 73 s ago"),
        (-3600, True, "dated 3600 s ahead of this machine's clock"),
        (3, False, "nothing answers at http://127.0.0.1:8000"),
        (73, False, "last reconciled 73 s ago; nothing answers at http://127.0.0.1:8000"),
    ],
)
def test_a_status_is_stale_when_nobody_renews_it_or_nothing_answers(
    seconds: float, answers: bool, reason: str | None
) -> None:
    (row,) = rows(status(seconds), NOW, answers=answers)
    assert (row["stale"], row["reason"], row["age_seconds"]) == (reason is not None, reason, seconds)
    assert row["versions"] == [{"version": 1, "digest": "0" * 64, "weight": 100}]


def test_an_old_reason_stays_beside_the_age() -> None:
    entry = LIVE.model_copy(update={"stale": True, "reason": "production.yaml cannot be read"})
    (row,) = rows(status(100, entry), NOW, answers=True)
    assert row["reason"] == "last reconciled 100 s ago; production.yaml cannot be read"


def test_marking_keeps_what_serves_unless_nothing_does(settings: Settings) -> None:
    mark_stale(settings, "before the first one")
    write_status(settings, status())
    mark_stale(settings, "Git is away")
    last = read_status(settings)
    assert last is not None and last.environments[0].versions == LIVE.versions
    assert (last.environments[0].stale, last.environments[0].reason) == (True, "Git is away")
    assert last.at > NOW
    mark_stale(settings, "Ray ended", serves=False)
    last = read_status(settings)
    assert last is not None and (last.environments[0].versions, last.gateway_url) == ((), None)
    status_path(settings).write_text("{")
    mark_stale(settings, "whatever stood there")
    assert read_status(settings) is not None
