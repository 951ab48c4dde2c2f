"""Drift against the corpus of the model in production, with real artifacts and a real environment repository."""

import json
from pathlib import Path

import polars as pl
import pytest

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import Settings, StepConfig
from components.core.errors import GateRefused
from components.core.events import Events, read_events
from components.core.graph.stages import Stage
from components.data.config import DriftConfig
from components.data.contracts.measures import document_statistics
from components.data.contracts.profile import SUMMARY, summary
from components.data.documents.document import SCHEMA
from components.release import environment
from components.release.accepted import Accepted, judge, keep
from components.release.config import ReleaseConfig
from components.serving.versions import WeightedVersion
from tests.data.conftest import document

CONFIG = ReleaseConfig()
WARN = DriftConfig(min_documents=50)


class NoConfig(StepConfig):
    """No parameters."""


class Lines:
    """A workspace of two stages: check, which leaves a summary, and train, which makes a model of it."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(state=root / "state")
        self.check, self.model = root / "check", root / "model"
        self.events = Events("cycle", self.settings)
        outputs = {"check_clean": self.check, "train": self.model}
        self.stages = [Stage(name=name, command="", dependencies=(), outputs=(path,)) for name, path in outputs.items()]

    def run(self, line: str) -> Manifest:
        """A corpus of a hundred documents that repeat a line from five to a hundred times, and its model."""
        rows = [document(line * (5 + number), f"{number}.py") for number in range(100)]
        statistics = document_statistics(pl.DataFrame(rows, schema=SCHEMA), ("MIT",))
        checked = self._write("check_clean", self.check, [], json.dumps(summary(statistics)))
        return self._write("train", self.model, [checked], line)

    def _write(self, stage: str, out: Path, inputs: list[Manifest], text: str) -> Manifest:
        with artifact.create(out, stage=stage, config=NoConfig(), inputs=inputs, code=Path(__file__)) as draft:
            (draft.path / SUMMARY).write_text(text)
        assert draft.manifest is not None
        return draft.manifest

    def promote(self, number: int, model: Manifest) -> None:
        only = WeightedVersion(version=number, digest=model.digest, weight=100)
        environment.commit(
            self.settings,
            "production",
            CONFIG,
            change=lambda now: now.file.model_copy(update={"versions": (only,)}),
            subject=f"Promote version {number}",
            body="",
        )

    def judged(self, config: DriftConfig = WARN) -> str | None:
        return judge("check_clean", self.check, config, Accepted(self.settings, "production", CONFIG), self.events)


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return Lines(tmp_path)


def test_the_first_cycle_has_nothing_to_compare_with_and_says_so(lines: Lines) -> None:
    lines.run("x = 1\n")
    assert lines.judged() == "check_clean: drift was not judged, no model was promoted to production yet"
    assert lines.judged(DriftConfig(action="off")) is None


def test_a_shift_warns_or_blocks_and_a_rollback_changes_what_is_compared(lines: Lines) -> None:
    first = lines.run("x = 1\n")
    assert keep(lines.settings, lines.model, lines.stages) == ["check_clean"]
    lines.promote(1, first)
    assert lines.judged() is None
    seen, _ = read_events(lines.events.path)
    metrics = {each["name"]: each["value"] for each in seen if each["kind"] == "metric"}
    assert metrics["psi/check_clean/text_bytes"] == 0 and metrics["psi/check_clean/language"] == 0

    second = lines.run("a_much_longer_line = 'of another kind of corpus'\n")
    line = lines.judged()
    assert line is not None and "text_bytes" in line and "mean_line_characters" in line
    with pytest.raises(GateRefused, match=r"accept it with --set check_clean\.drift\.action=warn") as refused:
        lines.judged(DriftConfig(action="block", min_documents=50))
    assert refused.value.exit_code == 4 and "\n" not in str(refused.value)

    keep(lines.settings, lines.model, lines.stages)
    lines.promote(2, second)
    assert lines.judged() is None, "what is in production now is the corpus to compare with"
    environment.rollback(lines.settings, "production", CONFIG, reason="a test says so")
    assert lines.judged() == line


def test_a_summary_that_the_model_was_not_made_from_is_not_kept(lines: Lines) -> None:
    model = lines.run("x = 1\n")
    lines._write("check_clean", lines.check, [], "{}")
    assert keep(lines.settings, lines.model, lines.stages) == []
    lines.promote(1, model)
    assert lines.judged() == (
        "check_clean: drift was not judged, the model in production was not registered here, so its corpus is not known"
    )
