"""Bring a model into production: register, gate, commit. Serving follows the commit, by reconcile.

Every decision, whichever it is, is kept in MLflow as a tag of the version; a promotion is also a commit with its
reasons and the model's card. Promote and rollback by hand are commits too, and say that nobody asked the gate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import Settings
from components.core.errors import OvernightError
from components.evaluation.comparison.pairs import Paired
from components.release import environment as environments
from components.release import registry
from components.release.cards import card
from components.release.config import ReleaseConfig
from components.release.environment import Desired, EnvironmentFile
from components.release.gate import GateDecision, absolute, decide
from components.release.registry import RegisteredVersion
from components.serving.versions import FULL_WEIGHT, WeightedVersion

CHAMPION_TAG = "gate_champion"
LOOKS_TAG = "gate_looks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about a candidate.

    `figures` are what the absolute gate reads, `metrics` all that the registry and the card show. `against` measures a
    champion, given its directory, on the candidate's items, and pairs them.
    """

    figures: Mapping[str, float]
    metrics: Mapping[str, float]
    against: Callable[[Path], Mapping[str, Paired]]


class ReleaseResult(BaseModel):
    """What became of a candidate. `environment_commit` asks for it to be served; None when it was not let through."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Literal["promote", "refuse", "not_enough_evidence", "already_live"]
    reasons: tuple[str, ...]
    version: int
    digest: str
    environment_commit: str | None


def release(
    settings: Settings,
    environment: str,
    config: ReleaseConfig,
    *,
    model_dir: Path,
    evidence: Evidence,
    lineage: Sequence[Manifest] = (),
    tags: Mapping[str, str] | None = None,
) -> ReleaseResult:
    """Register a model, ask the gate, and commit it to an environment if the gate lets it through.

    `lineage` are the manifests behind the model, `tags` what only the caller knows (cycle, git_commit). Safe to repeat.
    Raises OvernightError when MLflow or the environment repository fails, or when the environment changes while the
    champion is measured: the decision would not be about what runs.
    """
    manifest = artifact.read(model_dir)
    version = registry.register(settings, model_dir, tags=tags or {}, metrics=evidence.metrics)
    now = environments.read(settings, environment, config)
    if any(each.digest == version.digest for each in now.file.versions):
        reason = f"version {version.version} is in {environment} already, since commit {now.commit[:12]}"
        return _result("already_live", (reason,), version, now.commit)
    look = _look(version, now)
    decision = _ask_gate(settings, config, evidence, now, look)
    verdict = {"gate": decision.outcome, "gate_reasons": "; ".join(decision.reasons)}
    registry.tag(settings, version.version, verdict | _looked(look, now))
    if decision.outcome != "promote":
        return _result(decision.outcome, decision.reasons, version, None)
    text = card(version.version, manifest, lineage, evidence.metrics, decision)
    made = environments.commit(
        settings,
        environment,
        config,
        change=_only(version, now),
        subject=f"Promote version {version.version} to {environment}",
        body=_body(decision.reasons, version),
        files={f"cards/{version.version}.md": text},
    )
    return _result("promote", decision.reasons, version, made.commit)


def promote(settings: Settings, environment: str, config: ReleaseConfig, *, version: int) -> ReleaseResult:
    """Put a registered version into an environment at full weight because a person says so; no gate is asked."""
    registered = registry.get(settings, version)
    now = environments.read(settings, environment, config)
    reasons = (f"by hand; the gate's last word on it was {registered.tags.get('gate', 'never given')}",)
    made = environments.commit(
        settings,
        environment,
        config,
        change=_only(registered, now),
        subject=f"Promote version {version} to {environment} by hand",
        body=_body(reasons, registered),
    )
    return _result("already_live" if made == now else "promote", reasons, registered, made.commit)


def _look(version: RegisteredVersion, now: Desired) -> int:
    """How often this version was judged against this champion, this time included."""
    champion = now.file.champion
    if champion is None or version.tags.get(CHAMPION_TAG) != champion.digest:
        return 1
    return 1 + int(version.tags[LOOKS_TAG])


def _looked(look: int, now: Desired) -> dict[str, str]:
    """Tags from which the next look knows that it is not the first."""
    champion = now.file.champion
    return {} if champion is None else {CHAMPION_TAG: champion.digest, LOOKS_TAG: str(look)}


def _ask_gate(settings: Settings, config: ReleaseConfig, evidence: Evidence, now: Desired, look: int) -> GateDecision:
    """Measure the champion, if there is one and the candidate has a chance, and decide."""
    champion = now.file.champion
    if champion is None or any(outcome != "promote" for outcome, _ in absolute(config, evidence.figures)):
        differences: Mapping[str, Paired] | None = None if champion is None else {}
    else:
        differences = evidence.against(registry.resolve(settings, champion.version, champion.digest))
    return decide(config, figures=evidence.figures, differences=differences, look=look)


def _only(version: RegisteredVersion, decided_on: Desired) -> Callable[[Desired], EnvironmentFile]:
    """A change that leaves this version alone in an environment, refused when that is no longer as it was seen."""

    def change(now: Desired) -> EnvironmentFile:
        if now.commit != decided_on.commit:
            raise OvernightError(
                f"{now.file.environment} was changed by {now.commit[:12]} while version {version.version} was judged "
                f"against {decided_on.commit[:12]}; run the release again"
            )
        only = WeightedVersion(version=version.version, digest=version.digest, weight=FULL_WEIGHT)
        return EnvironmentFile(environment=now.file.environment, versions=(only,))

    return change


def _body(reasons: Sequence[str], version: RegisteredVersion) -> str:
    """A commit's body: why, and from what."""
    lineage = [f"{name}: {value}" for name, value in sorted(version.tags.items()) if not name.startswith("gate")]
    return "\n".join([*(f"- {reason}" for reason in reasons), "", *lineage])


def _result(
    decision: Literal["promote", "refuse", "not_enough_evidence", "already_live"],
    reasons: Sequence[str],
    version: RegisteredVersion,
    commit: str | None,
) -> ReleaseResult:
    return ReleaseResult(
        decision=decision,
        reasons=tuple(reasons),
        version=version.version,
        digest=version.digest,
        environment_commit=commit,
    )
