"""The corpus behind the model in production, and new corpora held against it.

Stages leave a summary of the corpus beside their artifact. Whenever a model is registered, the summaries that it
descends from are kept in .overnight/accepted/<digest of the model>/<stage>.json; the model that an environment serves
most then says which of them is the accepted one. So a rollback, or a promotion by hand, changes the comparison too.
Not covered: models that were registered on another machine; nothing is judged against them, and that is said.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core import artifact
from components.core.config import Settings
from components.core.errors import ArtifactError, GateRefused, OvernightError
from components.core.events import Events
from components.core.graph.stages import Stage
from components.data.config import DriftConfig
from components.data.contracts import drift
from components.data.contracts.profile import SUMMARY
from components.release import environment as environments
from components.release.config import ReleaseConfig

FOLDER = "accepted"


def keep(settings: Settings, model_dir: Path, stages: Sequence[Stage]) -> list[str]:
    """Keep the summaries of the corpus that a model was made from; returns the stages that had one.

    An artifact of this workspace that the model does not descend from has nothing to say about it.
    """
    manifests = {}
    for stage in stages:
        try:
            manifest = artifact.read(stage.output, verify=False)
        except ArtifactError:
            continue
        manifests[manifest.digest] = (stage, manifest)
    model = artifact.read(model_dir, verify=False)
    ancestors, todo = set[str](), [each.digest for each in model.inputs]
    while todo:
        digest = todo.pop()
        if digest in manifests and digest not in ancestors:
            ancestors.add(digest)
            todo += [each.digest for each in manifests[digest][1].inputs]
    folder = settings.state / FOLDER / model.digest
    kept = []
    for stage in stages:
        summary = stage.output / SUMMARY
        if summary.is_file() and any(manifests[digest][0] is stage for digest in ancestors):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(summary, folder / f"{stage.name}.json")
            kept.append(stage.name)
    return kept


class Accepted:
    """The summaries that stand behind what an environment serves now; asked for once, when first needed."""

    def __init__(self, settings: Settings, environment: str, config: ReleaseConfig) -> None:
        self._settings = settings
        self._environment = environment
        self._config = config
        self._folder: Path | None = None
        self._reason: str | None = None
        self._has_looked = False

    def summary(self, stage: str) -> tuple[dict[str, Any] | None, str | None]:
        """The accepted summary of a stage, or None and why there is none."""
        if not self._has_looked:
            self._has_looked = True
            self._look()
        if self._folder is None:
            return None, self._reason
        path = self._folder / f"{stage}.json"
        if not path.exists():
            return None, f"the model in {self._environment} was not registered here, so its corpus is not known"
        content: dict[str, Any] = json.loads(path.read_bytes())
        return content, None

    def _look(self) -> None:
        try:
            champion = environments.read(self._settings, self._environment, self._config).file.champion
        except OvernightError as error:
            self._reason = f"the environment repository does not answer ({error})"
            return
        if champion is None:
            self._reason = f"no model was promoted to {self._environment} yet"
        else:
            self._folder = self._settings.state / FOLDER / champion.digest


def judge(stage: str, output: Path, config: DriftConfig, accepted: Accepted, events: Events) -> str | None:
    """Hold the corpus that a stage left against the accepted one: metrics psi/<stage>/<column>, and a line to note.

    Raises GateRefused with that line when the config blocks a shift. None when there is nothing to say.
    """
    if config.action == "off":
        return None
    summary, reason = accepted.summary(stage)
    if summary is None:
        return f"{stage}: drift was not judged, {reason}"
    shift = drift.judge(summary, json.loads((output / SUMMARY).read_bytes()), config)
    if shift.unjudged:
        return f"{stage}: drift was not judged, {shift.unjudged}"
    events.metrics({f"psi/{stage}/{column}": value for column, value in shift.psi.items()})
    line = drift.complaint(stage, shift, config)
    if line is not None and config.action == "block":
        raise GateRefused(f"{line}; accept it with --set {stage}.drift.action=warn")
    return line
