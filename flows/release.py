"""Bring a model into an environment, promote or roll back by hand: each a commit, followed by a reconcile."""

import time
from pathlib import Path
from typing import Annotated, Any

import httpx
from prefect import flow
from pydantic import Field

from components.core.config import Settings, read_settings
from components.core.errors import GateRefused, OvernightError, one_line
from components.core.events import Events
from components.core.graph.stages import read_stages, released, writer
from components.lineage.models import LINEAGE_TAG
from components.machine import cluster
from components.release import accepted
from components.release import environment as environments
from components.release import release as releases
from components.release.config import ENVIRONMENT_NAME
from components.release.evidence import read_evidence
from components.release.reconcile import reconcile
from components.release.status import REASON_CHARACTERS
from dashboards.report.cycle_record import ReleaseRecord, ServingRecord
from flows.running import graph
from flows.running.params import Params, read_params
from flows.servers.subprocesses import run_tool

Version = Annotated[int, Field(ge=1, description="number of a registered version")]
Environment = Annotated[str, Field(pattern=ENVIRONMENT_NAME, description="name of an environment file")]
REFUSALS = ("refuse", "not_enough_evidence")
PROMPT = "def add(a, b):\n    return"


def release_model(
    settings: Settings, environment: str, params: Params, events: Events, model_dir: Path
) -> tuple[ReleaseRecord, ServingRecord | None]:
    """Register, gate, commit, reconcile, and ask the model that then serves for a first answer.

    Where the gate refuses, the champion goes on serving: nothing is raised, the record says so.
    """
    cluster.start_head(settings)
    stages = read_stages()
    evidence = read_evidence(
        params.evaluate,
        params.release.criteria,
        events,
        model=model_dir.name,
        model_dir=model_dir,
        evaluation=writer(stages, "evaluation").output,
        tokens=writer(stages, "tokens").output,
    )
    lineage = [graph.output_manifest(each) for each in stages if each.output.is_dir()]
    tags = {"cycle": settings.cycle or "", "git_commit": head_commit()}
    result = releases.release(
        settings,
        environment,
        params.release,
        model_dir=model_dir,
        evidence=evidence,
        lineage=lineage,
        tags=tags | {f"{LINEAGE_TAG}{each.stage}": each.digest for each in lineage},
    )
    accepted.keep(settings, model_dir, stages)
    for reason in result.reasons:
        events.note(f"{result.decision}: {reason}")
    record = ReleaseRecord(
        decision=result.decision,
        reasons=result.reasons,
        version=str(result.version),
        environment_commit=result.environment_commit,
    )
    status = reconcile(settings, environment, params.release, params.serving)
    return record, first_request(status.gateway_url) if status.gateway_url else None


def head_commit() -> str:
    """The commit of this checkout; empty outside one."""
    try:
        return run_tool(["git", "rev-parse", "HEAD"], {}).strip()
    except OvernightError:
        return ""


def first_request(url: str) -> ServingRecord:
    """Ask the gateway for one completion. Raises OvernightError when it does not answer with one."""
    started = time.perf_counter()
    body = {"model": "overnight", "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    try:
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).raise_for_status()
    except httpx.HTTPError as error:
        raise OvernightError(f"the gateway at {url} did not answer its first request: {error}") from error
    milliseconds = 1000 * (time.perf_counter() - started)
    text = answer.json()["choices"][0]["text"]
    return ServingRecord(url=url, first_request_ms=round(milliseconds, 1), prompt=PROMPT, completion=text)


@flow(name="release", flow_run_name="release", persist_result=False)
def release(model_dir: str | None = None) -> dict[str, Any]:
    """Register a model, ask the gate, commit the environment file, serve.

    Args:
        model_dir: the model's directory, which the last evaluation must be about; that of the cycle when empty
    """
    settings, params = read_settings(), read_params()
    chosen = Path(model_dir) if model_dir else released(read_stages()).output
    events = Events("release", settings)
    record, serving = release_model(settings, params.release.environment, params, events, chosen)
    require_promotion(record)
    return {"release": record.model_dump(), "serving": serving.model_dump() if serving else None}


def require_promotion(record: ReleaseRecord) -> None:
    """Raise GateRefused with the reasons, once everything else is done."""
    if record.decision in REFUSALS:
        raise GateRefused(f"version {record.version}: {record.decision.replace('_', ' ')}: {'; '.join(record.reasons)}")


@flow(name="promote", flow_run_name="promote", persist_result=False)
def promote(version: Version, environment: Environment | None = None) -> dict[str, Any]:
    """Put a registered version into an environment, because a person says so.

    Args:
        version: number of a registered version
        environment: release.environment of params.yaml when empty
    """
    settings, params = read_settings(), read_params()
    name = _known(settings, environment, params)
    result = releases.promote(settings, name, params.release, version=version)
    return result.model_dump() | {"serving": _follow(settings, name, params, result.environment_commit or "")}


@flow(name="rollback", flow_run_name="rollback", persist_result=False)
def rollback(environment: Environment | None = None) -> dict[str, Any]:
    """Bring an environment back to its last usable state that differs, by a commit.

    Args:
        environment: release.environment of params.yaml when empty
    """
    settings, params = read_settings(), read_params()
    name = _known(settings, environment, params)
    restored = environments.rollback(settings, name, params.release, reason="by hand")
    serving = _follow(settings, name, params, restored.commit)
    passed_over = list(restored.passed_over)
    return restored.file.model_dump() | {"commit": restored.commit, "passed_over": passed_over, "serving": serving}


def _known(settings: Settings, environment: str | None, params: Params) -> str:
    """The environment that is meant. Raises ConfigError that lists those there are."""
    name = params.release.environment if environment is None else environment
    environments.require(settings, name, params.release)
    return name


def _follow(settings: Settings, environment: str, params: Params, commit: str) -> str | None:
    """Follow a commit at once where the gateway here serves that environment; elsewhere its own reconcile does."""
    if environment != params.release.environment or cluster.address(settings) is None:
        return None
    try:
        return reconcile(settings, environment, params.release, params.serving).gateway_url
    except Exception as error:
        raise OvernightError(
            f"committed {commit[:12]}, but serving does not follow yet: {one_line(error, REASON_CHARACTERS)}; "
            "`overnight status` says when it does"
        ) from error
