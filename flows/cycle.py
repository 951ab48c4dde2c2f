"""The cycle: every stage of dvc.yaml as a Prefect task in topological order, then the release.

Prefect gives retries, logs, artifacts and the UI; DVC decides what has to run; the stage does the work.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from prefect import Task, flow, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging.handlers import APILogHandler
from pydantic import Field

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import Settings, read_settings
from components.core.errors import ConfigError
from components.core.events import Events
from components.core.graph.stages import Stage, read_all, read_stages, released, writer
from components.deadline.budget import process_seconds
from components.lineage import survey
from components.machine import cluster, services
from components.release.accepted import Accepted, judge
from components.release.status import read_status
from components.training.config import Plan
from components.training.engine.model.shape import kind_of
from components.training.planning import predictions
from dashboards.report import cycle_record
from dashboards.report.page import render
from flows.release import REFUSALS, head_commit, release_model, require_promotion
from flows.running import contract_artifacts, extras, graph, params, replay, stage
from flows.running.deadline import Deadline, require_possible
from flows.running.prefect_pages import StageProgress, summarise
from flows.running.progress import Progress, StageWatch, open_progress
from flows.running.tracking import LiveForwarder
from flows.running.workspace import exclusive
from flows.servers.ports import require_gateway_port

Profile = Literal["smoke", "cpu-hour", "adapt", "adapt-gpu", "h200-day", "h100x8-day"]
Hours = Annotated[float, Field(gt=0, le=24 * 14, description="deadline, hours from now")]
# Kinds of artifacts: what the plan predicts the loss of, and the first model that answers.
BASE, CHAT = "base_model", "tuned_model"
RETRY_DELAYS_SECONDS = [5.0, 30.0]
UNPLANNED_TIMEOUT_SECONDS = 6 * 3600.0


def new_cycle_id(now: float) -> str:
    """An id that sorts by time, e.g. 20261121-034500-1f3a."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{uuid.uuid4().hex[:4]}"


def stage_timeout_seconds(planned_seconds: float | None) -> float:
    """How long a stage may take: five times its plan and ten minutes more; six hours while there is no plan."""
    return UNPLANNED_TIMEOUT_SECONDS if planned_seconds is None else 600 + 5 * planned_seconds


class Cycle:
    """One run of the graph in this workspace: what was asked, what came of it so far."""

    def __init__(self, settings: Settings, profile: str | None, names: Sequence[str]) -> None:
        started_at = time.time() - process_seconds()  # a person's deadline counts from the command
        self.settings = settings.model_copy(
            update={"cycle": settings.cycle or new_cycle_id(started_at), "cycle_started_at": started_at}
        )
        self.cycle_id = str(self.settings.cycle)
        self.profile = profile
        self.started_at = started_at
        self.params = params.read_params()
        by_clock = [each.name for each in read_stages() if each.meta.by_clock]
        self.deadline = Deadline(self.settings, self.params, names, by_clock, self.note)
        self.budgets: dict[str, float] = {}
        self.recorded: cycle_record.CycleRecord | None = None
        self.results: list[tuple[cycle_record.StageResult, float]] = []
        self.notes: list[str] = []
        self.released = cycle_record.ReleaseRecord(
            decision="not_asked", reasons=(), version=None, environment_commit=None
        )
        self.serving: cycle_record.ServingRecord | None = None
        self._current: set[str] | None = None
        self._accepted = Accepted(self.settings, self.params.release.environment, self.params.release)
        self.events = Events("cycle", self.settings)
        self.progress: Progress = open_progress(self.settings)

    def note(self, text: str) -> None:
        """One line for the person who watches, kept in the report."""
        self.notes.append(text)
        self.progress.note(text)

    def bring_up_to_date(self, each: Stage, tell_ui: Callable[[str, float], None]) -> cycle_record.StageResult:
        """Run one stage if DVC finds it out of date. Raises StageFailed after telling the progress."""
        started_at = time.time()
        plan = cycle_record.current_plan()
        planned = plan.stage_seconds.get(each.name) if plan else None
        self.budgets.pop(each.name, None)
        if planned is not None:
            self.events.metric(f"planned_seconds/{each.name}", planned)
        self.progress.started(each.name, planned)
        watch = StageWatch(each.name, self.settings, self.progress)

        def look() -> None:
            watch()
            tell_ui(watch.detail, watch.share)

        try:
            if self._is_current(each):
                result = stage.cached(each)
            else:
                cluster.start_head(self.settings)
                settings = self._with_end(each.name, plan)
                result = stage.run(each, settings, timeout_seconds=stage_timeout_seconds(planned), watch=look)
        except stage.StageFailed as error:
            self.progress.failed(each.name, str(error))
            failed = cycle_record.StageResult(
                name=each.name,
                status="failed",
                seconds=time.time() - started_at,
                work_seconds=0.0,
                digest="",
                peak_memory_bytes=0,
            )
            self._keep(failed, started_at)
            raise
        self._keep(result, started_at)
        self.deadline.keep(result, self.budgets.get(each.name))
        self.progress.finished(each.name, result)
        if each.meta.writes == BASE and result.status == "ran" and plan is not None:
            self._compare_prediction(plan, each.output)
        return result

    def _compare_prediction(self, plan: Plan, base: Path) -> None:
        """Hold what pretraining reached against what the plan predicted, and keep both."""
        row = predictions.outcome(plan, artifact.read(base, verify=False))
        if row is not None and predictions.keep(cycle_record.REPORTS / "laws", row):
            self.note(
                f"predicted {row['predicted']:.3f} bits per byte ({row['low']:.3f} to {row['high']:.3f}), "
                f"found {row['found']:.3f}"
            )

    def _with_end(self, name: str, plan: Plan | None) -> Settings:
        """Settings for a stage that starts now: with the time at which it should end, where the clock ends it."""
        now = time.time()
        seconds = self.deadline.seconds_of(name, plan, now)
        if seconds is None:
            return self.settings
        self.budgets[name] = seconds
        self.events.metric(f"given_seconds/{name}", seconds)
        return self.settings.model_copy(update={"stage_ends_at": now + seconds})

    def judge_drift(self, each: Stage) -> None:
        """Hold the corpus that a stage left, also one from the cache, against the one in production.

        It depends on what is in production, which no cache key knows, so it is no part of the stage. Raises
        GateRefused.
        """
        config = getattr(getattr(self.params, each.name, None), "drift", None)
        if config is not None:
            line = judge(each.name, each.output, config, self._accepted, self.events)
            if line is not None:
                self.note(line)

    def _keep(self, result: cycle_record.StageResult, started_at: float) -> None:
        """One row a stage: a retry takes the place of the attempt before it."""
        self.results = [(other, at) for other, at in self.results if other.name != result.name]
        self.results.append((result, started_at))

    def _is_current(self, each: Stage) -> bool:
        """Whether DVC finds nothing to do for a stage. The first ones are asked about together, which is faster."""
        if self._current is None:
            self._current = graph.current_stages(read_stages())
        return each.name in self._current or each.name in graph.current_stages([each])

    def release(self) -> None:
        """Register, gate, commit, serve: the last row of the cycle, and no stage of the graph."""
        started_at = time.time()
        plan = cycle_record.current_plan()
        self.progress.started("release", plan.stage_seconds.get("release") if plan else None)
        events = Events("release", self.settings)
        watch = StageWatch("release", self.settings, self.progress)
        model, environment = released(read_stages()).output, self.params.release.environment
        self.released, self.serving = release_model(self.settings, environment, self.params, events, model)
        watch()
        seconds = time.time() - started_at
        result = cycle_record.StageResult(
            name="release",
            status="cached" if self.released.decision == "already_live" else "ran",
            seconds=seconds,
            work_seconds=seconds,
            digest=graph.manifest_digest(model),
            peak_memory_bytes=0,
        )
        self._keep(result, started_at)
        self.deadline.keep(result, None)
        self.progress.finished("release", result)

    def record(self, run_ids: dict[str, str], error: str | None) -> cycle_record.CycleRecord:
        """The report of the cycle as it stands."""
        now = time.time()
        complete = error is None
        seconds, work_seconds = now - self.started_at, sum(result.work_seconds for result, _ in self.results)
        by_clock = self.params.plan.mode == "deadline"
        made = self._made()
        contents = {name: replay.content(manifest) for name, manifest in made.items()}
        machine, commit = json.loads(survey.HARDWARE.read_bytes()), head_commit()
        if self.recorded:
            self.note(replay.compared(self.recorded, contents, machine, commit))
        return cycle_record.CycleRecord(
            cycle_id=self.cycle_id,
            profile=self.profile,
            started_at=cycle_record.iso(self.started_at),
            finished_at=cycle_record.iso(now),
            deadline_hours=self.params.plan.hours,
            deadline_left_seconds=round(self.params.plan.hours * 3600 - seconds, 3) if by_clock else None,
            seconds=round(seconds, 3),
            work_seconds=round(work_seconds, 3),
            goodput=round(work_seconds / seconds, 4),
            peak_memory_bytes=max((result.peak_memory_bytes for result, _ in self.results), default=0),
            stages=cycle_record.stage_records(self.results, cycle_record.current_plan(), run_ids, self.budgets),
            metrics=cycle_record.read_metrics() if complete else {},
            model=cycle_record.model_record(read_stages()) if complete else None,
            release=self.released,
            serving=self.serving,
            notes=tuple(self.notes),
            error=error,
            parameters=self.params.model_dump(mode="json"),
            decided=replay.decided(made),
            contents=contents,
            machine=machine,
            commit=commit,
        )

    def _made(self) -> dict[str, Manifest]:
        """The artifacts of the stages that this cycle got to, by stage."""
        digests = {result.name: result.digest for result, _ in self.results}
        manifests = replay.outputs({each.name: each.output for each in read_stages() if each.name in digests})
        return {name: manifest for name, manifest in manifests.items() if manifest.digest == digests[name]}


def _is_transient(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying a failed stage again can help: it was killed, or a connection broke; bad input stays bad."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, stage.StageFailed) and error.transient


def stage_task(cycle: Cycle, each: Stage) -> Task[[], dict[str, Any]]:
    """A stage of the graph as a Prefect task of the same name."""

    def bring_up_to_date() -> dict[str, Any]:
        logger = get_run_logger()
        logger.info("%s", each.command)
        ui = StageProgress(each.name)
        started_at = time.time()
        try:
            result = cycle.bring_up_to_date(each, ui.tell)
        except stage.StageFailed:
            contract_artifacts.tell_prefect(each, cycle.settings, failed_since=started_at)
            raise
        ui.finish()
        contract_artifacts.tell_prefect(each, cycle.settings)
        logger.info("%s in %.1f s, digest %s", result.status, result.seconds, result.digest)
        return asdict(result)

    return Task(
        bring_up_to_date,
        name=each.name,
        task_run_name=each.name,
        retries=len(RETRY_DELAYS_SECONDS),
        retry_delay_seconds=RETRY_DELAYS_SECONDS,
        retry_condition_fn=_is_transient,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


@flow(name="cycle", flow_run_name="cycle", persist_result=False, validate_parameters=True)
def cycle(
    profile: Profile | None = None,
    hours: Hours | None = None,
    overrides: tuple[str, ...] = (),
    until: str | None = None,
    release: bool = True,
    replayed: str | None = None,
) -> dict[str, Any]:
    """Raw data to a model in production.

    Args:
        profile: parameter set that params.yaml is composed from; params.yaml as it is when empty
        hours: deadline, hours from now
        overrides: single values of params.yaml, each SECTION.KEY=VALUE
        until: last stage to run; all of them when empty
        release: register the model, ask the gate, commit the environment, serve
        replayed: id of a recorded cycle, run again in fixed mode with all that time decided in it
    """
    settings = read_settings()
    with exclusive(settings, "a cycle"):
        recorded = replay.find(replayed) if replayed else None  # before its record's place may be taken
        notes = configure(profile, hours, overrides, replayed)
        stages = read_stages()
        chosen = graph.stages_until(stages, until)
        require_chat(chosen, params.read_params())
        release = release and len(chosen) == len(stages)
        require_possible(params.read_params(), settings, chosen, params.read_params())
        names = [*(each.name for each in chosen), *(["release"] if release else [])]
        current = Cycle(settings, recorded.profile if recorded else profile, names)
        for each in notes:
            current.note(each)
        current.recorded = recorded
        return _run(current, chosen, release)


def configure(
    profile: str | None, hours: float | None, overrides: Sequence[str], replayed: str | None = None
) -> list[str]:
    """Write what was asked into params.yaml, and what stages depend on beside artifacts, so that DVC sees all of it.
    Returns what a person should know of it."""
    params.write_params(replay.text(replayed) if replayed else params.requested(profile, hours, overrides))
    extras.install(params.read_params().pretrain.init_from, lambda line: print(line, file=sys.stderr, flush=True))
    notes = [note for each in read_all() if each.meta.survey for note in survey.run(each.arguments)]
    again = graph.runs_again(read_stages())
    return [*notes, *([again] if again else [])]


def require_chat(stages: Sequence[Stage], parameters: params.Params) -> None:
    """Raise ConfigError where a stage needs a model that answers, and the architecture has none that does."""
    architecture = parameters.plan.architecture
    has_chat = parameters.pretrain.init_from is not None or kind_of(architecture) == "decoder"
    if not has_chat and any(each.meta.writes == CHAT for each in stages):
        last = writer(stages, BASE).name
        raise ConfigError(f"plan.architecture {architecture} has no chat: run with --until {last}")


def _run(current: Cycle, stages: Sequence[Stage], release: bool) -> dict[str, Any]:
    """Run stages and release; whatever happens, leave a report and MLflow's share sent as far as it can be."""
    settings = current.settings
    forwarder = LiveForwarder(settings, current.cycle_id, current.note)
    by_clock = current.params.plan.mode == "deadline"
    deadline_seconds = 3600 * current.params.plan.hours if by_clock else None
    current.events.write("started", began_at=current.started_at, deadline_seconds=deadline_seconds)
    current.events.tag("cycle_id", current.cycle_id)
    current.events.tag("profile", current.profile or "params.yaml")
    error: str | None = None
    try:
        if release:
            require_gateway_port(settings)
        for each in stages:
            stage_task(current, each)()
            current.judge_drift(each)
        if release:
            current.release()
        current.events.write("finished", seconds=time.time() - current.started_at, digest="", inputs=[], statistics={})
    except BaseException as caught:
        error = str(caught) or type(caught).__name__
        current.events.write("failed", error=error, exit_code=getattr(caught, "exit_code", 1))
        raise
    finally:
        stop_idle_ray(settings)
        result = _conclude(current, forwarder, error)
    require_promotion(current.released)
    return result


def _conclude(current: Cycle, forwarder: LiveForwarder, error: str | None) -> dict[str, Any]:
    """Write the record and its page, and tell Prefect. A page that cannot be drawn hides no error of the cycle."""
    record = current.record(forwarder.close(), error)
    path = cycle_record.write(record)
    page: Path | None = None
    try:
        page = render_page(record, read_stages(), current.settings.state)
    except Exception as caught:
        current.note(f"the page could not be drawn ({type(caught).__name__}: {caught}); {path} holds the record")
    if error is not None or current.released.decision in REFUSALS:
        current.progress.note(f"report: {page or path}")  # who is told of an error is not told of it elsewhere
    current.progress.close()
    summarise(record)
    return record.model_dump(mode="json") | {"report": str(path), "page": str(page or path)}


def stop_idle_ray(settings: Settings) -> None:
    """Leave no Ray behind that neither serves nor belongs to `overnight up`."""
    head = services.running(settings, cluster.SERVICE)
    if head is None or services.running(settings, "reconcile"):
        return
    status = read_status(settings)
    port = urlsplit(status.gateway_url).port if status and status.gateway_url else None
    if port is None or not services.listens(head, port):
        cluster.stop_head(settings)


def render_page(record: cycle_record.CycleRecord, stages: Sequence[Stage], state: Path) -> Path:
    """reports/cycle.html from the record and what the stages left."""
    return render(record, cycle_record.REPORTS / "cycle.html", stages=stages, state=state)


def main(
    profile: str | None,
    hours: float | None,
    overrides: Sequence[str],
    until: str | None,
    release: bool,
    replayed: str | None = None,
) -> dict[str, Any]:
    """The flow, called from the command line. Raises what the flow raises."""
    try:
        result: dict[str, Any] = cycle(
            profile=profile,  # type: ignore[arg-type]
            hours=hours,
            overrides=tuple(overrides),
            until=until,
            release=release,
            replayed=replayed,
        )
        return result
    finally:
        APILogHandler().flush()  # before a temporary server goes
