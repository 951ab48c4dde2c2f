"""reports/cycle.html: what a cycle did, for people. One file, no network; nothing runs in it but its own script.

Reads   the cycle's record, what its stages wrote, their events and Data Docs (`state`)
Covers: cycles that failed or stopped half-way, and leftovers of earlier cycles: an artifact is shown only when its
digest is the one in the record. Paths, texts and completions are strangers' words: all of them are escaped.
"""

import base64
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from polars.exceptions import PolarsError

from components.core import artifact
from components.core.artifact import Manifest, write_file
from components.core.errors import ArtifactError, one_line
from components.core.events import read_events
from components.core.graph.stages import Stage
from components.data.contracts.profile import PROFILE
from dashboards.report import evaluation_section, judges_section, profile_page
from dashboards.report.chart import NO_BREAK, Chart, duration, line_chart, quantity, size, timeline
from dashboards.report.cycle_record import CycleRecord
from dashboards.report.evaluation_section import Evaluation
from dashboards.report.page_tables import (
    XZ_BITS_PER_BYTE,
    Count,
    Removal,
    bits_per_byte,
    final_model,
    redaction_counts,
    removals,
    xz_bits_per_byte,
)
from dashboards.report.rendering import TEMPLATES, environment

PROFILE_PAGE = "profile.html"
# Of the documents that bits per byte are measured on while pretraining runs.
XZ_IN_TRAINING = "xz_bits_per_byte_in_training"
LICENCES_SHOWN = 8
VERDICTS = {
    "promote": ("Promoted", "good"),
    "already_live": ("Already live", "good"),
    "refuse": ("Refused", "bad"),
    "not_enough_evidence": ("Not promoted, for want of evidence", "open"),
    "not_asked": ("Not released", "open"),
}
Section = TypeVar("Section")


class Missing(Exception):  # noqa: N818  reads as what it is
    """A part of the page that this cycle has nothing for; its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """Stands in the place of a section's content."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The page's first sentence: `word` in the colour of its `tone`, then the rest; `detail` is a log's line."""

    word: str
    tone: str
    rest: str
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A key number with what to hold it against."""

    label: str
    value: str
    detail: str


class Artifacts:
    """What this cycle's stages left, and nothing else that lies in the same place."""

    def __init__(self, record: CycleRecord, stages: Sequence[Stage]) -> None:
        self._records = {stage.name: stage for stage in record.stages}
        self._outputs = {stage.name: stage.output for stage in stages}
        self.stages = {stage.meta.writes: stage for stage in stages}

    def find(self, kind: str) -> tuple[Path, Manifest]:
        """Where a kind of artifact is, and its manifest. Raises Missing when it is not there or not this cycle's."""
        if kind not in self.stages:
            raise Missing(f"No stage of dvc.yaml writes {kind.replace('_', ' ')}.")
        return self.of(self.stages[kind].name)

    def of(self, stage: str) -> tuple[Path, Manifest]:
        """As `find`, of the stage of a name."""
        known = self._records.get(stage)
        if known is None:
            raise Missing(f"The stage {stage} did not run in this cycle.")
        if known.status == "failed":
            raise Missing(f"The stage {stage} failed.")
        path = self._outputs.get(stage)
        if path is None:
            raise Missing(f"The stage {stage} names no output.")
        manifest = artifact.read(path, verify=False)
        if manifest.digest != known.digest:
            digest, wanted = manifest.digest[:12], (known.digest or "none")[:12]
            raise Missing(f"{path} was replaced since: found digest {digest}, this cycle's is {wanted}.")
        return path, manifest


def render(record: CycleRecord, out: Path, *, stages: Sequence[Stage], state: Path) -> Path:
    """Write the page and return its path.

    `stages` are those of the graph, `state` says where events/<cycle> and docs/<stage> are. Whatever is
    absent or unreadable is named on the page instead.
    """
    artifacts = Artifacts(record, stages)
    script = (TEMPLATES / "cycle.js").read_text(encoding="utf-8")
    templates = environment({"duration": duration, "quantity": quantity, "size": size})
    profile = _section(lambda: corpus_profile(record, artifacts, out.with_name(PROFILE_PAGE)))
    text = templates.get_template("cycle.html.j2").render(
        record=record,
        verdict=verdict(record),
        decision=VERDICTS[record.release.decision][0],
        figures=figures(record, artifacts),
        timeline=timeline(record),
        training=_section(lambda: training(artifacts)),
        corpus=_section(lambda: corpus(artifacts)),
        evaluation=_section(lambda: evaluation(record, artifacts, state / "events" / record.cycle_id)),
        judges=_section(lambda: judges_section.judges(artifacts.find("preference_pairs")[0])),
        lineage=lineage(record, artifacts),
        notes=[("", text) for text in record.notes] + stage_notes(record, state / "events" / record.cycle_id),
        links=[*([] if isinstance(profile, Absent) else [profile]), *links(record, out, artifacts, state)],
        request=request(record),
        css=(TEMPLATES / "cycle.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, text.encode())
    return out


def verdict(record: CycleRecord) -> Verdict:
    """What came of the cycle, in one sentence."""
    took = f"{duration(record.seconds)} after the start"
    if record.deadline_hours is not None:
        left = record.deadline_hours * 3600 - record.seconds
        took += f" and {duration(abs(left))} {'before' if left >= 0 else 'past'} the deadline"
    if record.error is not None:
        failed = [stage.name for stage in record.stages if stage.status == "failed"]
        where = f"in {failed[-1]}" if failed else "after the stages" if record.stages else "before the first stage"
        return Verdict(word="Failed", tone="bad", rest=f"{where}, {took}.", detail=record.error)
    word, tone = VERDICTS[record.release.decision]
    version = f"version {record.release.version} " if record.release.version else ""
    if record.release.decision in ("promote", "already_live"):
        rest = f"{version}{'serves' if record.serving else 'is the one to serve'}, {took}."
    else:
        rest = f"{version}does not serve; " * bool(version) + f"the cycle ended {took}."
    return Verdict(word=word, tone=tone, rest=rest, detail=None)


def figures(record: CycleRecord, artifacts: Artifacts) -> list[Figure]:
    """The numbers that a reader asks for first, as far as the cycle got to them."""
    shown = [_time(record)]
    if compared := _held_out(record, artifacts):
        name, own, xz = compared
        against = (
            f"xz -9 needs {xz:.3f}: {abs(1 - own / xz):.1%} {'less' if own < xz else 'more'}" if xz else "held-out"
        )
        shown.insert(0, Figure(label=f"Bits per byte, {name}", value=f"{own:.3f}", detail=against))
    if record.model:
        each = record.model.tokens / record.model.parameters
        shown += [
            Figure(label="Parameters", value=quantity(record.model.parameters), detail=record.model.digest[:12]),
            Figure(label="Tokens trained on", value=quantity(record.model.tokens), detail=f"{each:.3g} a parameter"),
        ]
    shown += _speed(artifacts)
    if record.peak_memory_bytes and record.stages:
        peak = max(record.stages, key=lambda stage: stage.peak_memory_bytes)
        shown.append(Figure(label="Peak memory", value=size(record.peak_memory_bytes), detail=f"in {peak.name}"))
    if record.serving:
        served = Figure(
            label="First request",
            value=f"{record.serving.first_request_ms:.0f}{NO_BREAK}ms",
            detail="as a client saw it",
        )
        shown.append(served)
    return shown


def _held_out(record: CycleRecord, artifacts: Artifacts) -> tuple[str, float, float | None] | None:
    """The last evaluated model, its bits per byte and xz's on the same files; before that, as pretraining ended."""
    if name := final_model(record.metrics):
        own = bits_per_byte(record.metrics, name)
        assert own is not None
        return name, own, xz_bits_per_byte(record.metrics)
    try:
        statistics = artifacts.find("base_model")[1].statistics
    except (Missing, ArtifactError):
        return None
    own, xz = statistics.get("validation_bits_per_byte"), statistics.get(XZ_BITS_PER_BYTE)
    return None if own is None else ("base", own, xz)


def _time(record: CycleRecord) -> Figure:
    share = f"{record.work_seconds / record.seconds:.0%} of it work" if record.seconds else ""
    deadline = f"of {duration(record.deadline_hours * 3600)}, " if record.deadline_hours else ""
    return Figure(label="Time", value=duration(record.seconds), detail=deadline + share)


def _speed(artifacts: Artifacts) -> list[Figure]:
    """Tokens a second of pretraining, and the share of its time that it waited for data."""
    try:
        timed = artifacts.find("base_model")[1].run
    except (Missing, ArtifactError):
        return []
    if "tokens_per_second" not in timed or "data_stall_share" not in timed:
        return []
    stall = f"{timed['data_stall_share']:.2%} of it waiting for data"
    return [Figure(label="Pretraining", value=f"{quantity(timed['tokens_per_second'])} tokens/s", detail=stall)]


def training(artifacts: Artifacts) -> list[Chart]:
    """Loss, held-out bits per byte and learning rate over tokens."""
    path, manifest = artifacts.find("base_model")
    history, validation = (
        pl.read_csv(path / name, infer_schema_length=None) for name in ("history.csv", "validation.csv")
    )
    xz = manifest.statistics.get(XZ_IN_TRAINING)

    def points(table: pl.DataFrame, column: str) -> list[tuple[float, float]]:
        return table.select("tokens", pl.col(column).cast(pl.Float64)).drop_nulls().rows()

    reference = (f"xz -9: {xz:.3f}", xz) if xz else None
    charts = [
        line_chart("Training loss, nats per token", points(history, "loss"), "tokens", logarithmic=True),
        line_chart(
            "Held-out bits per byte, short documents",
            points(validation, "bits_per_byte"),
            "tokens",
            reference=reference,
        ),
        line_chart("Learning rate", points(history, "learning_rate"), "tokens"),
    ]
    return [each for each in charts if each is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Documents and bytes from the source to the tokens; `missing` names the stages that have nothing to say."""

    ingested: Mapping[str, Any]
    removals: list[Removal]
    kept: Removal | None
    licences: list[Count]
    other_licences: int
    redactions: list[Count] | None
    tokens: Mapping[str, Any] | None
    missing: list[str]


def corpus(artifacts: Artifacts) -> Corpus:
    """What came in, what went out and why, what stayed. Raises Missing when nothing came in."""
    raw, ingested = artifacts.find("raw_documents")
    missing: list[str] = []

    def directory(kind: str) -> Path | None:
        try:
            return artifacts.find(kind)[0]
        except (Missing, ArtifactError) as reason:
            missing.append(str(reason))
            return None

    checked, clean = directory("checked_documents"), directory("clean_documents")
    removed, kept = removals(raw, checked, clean)
    tokens = artifacts.find("tokens")[1].statistics if directory("tokens") else None
    licences = Count.ranked(ingested.statistics.get("documents_by_licence", {}))
    return Corpus(
        ingested=ingested.statistics,
        removals=removed,
        kept=kept,
        licences=licences[:LICENCES_SHOWN],
        other_licences=len(licences[LICENCES_SHOWN:]),
        redactions=redaction_counts(clean) if clean else None,
        tokens=tokens,
        missing=missing,
    )


def evaluation(record: CycleRecord, artifacts: Artifacts, events: Path) -> Evaluation:
    """The evaluation in words, pictures and a table, with what the release measured of the champion (`events`).

    Raises Missing when the stage has no artifact of this cycle.
    """
    path, manifest = artifacts.find("evaluation")
    metrics = evaluation_section.champion(events / "release.jsonl") | record.metrics
    shown = evaluation_section.evaluation(metrics, manifest.run.get("latency", {}), path)
    if not shown.rows:
        raise Missing("The evaluation reports no metric.")
    return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One stage's artifact, its inputs and parameters; `manifest` is None where it is not this cycle's."""

    name: str
    path: Path | None
    digest: str | None
    mlflow_run_id: str | None
    manifest: Manifest | None
    parameters: str


def lineage(record: CycleRecord, artifacts: Artifacts) -> list[Origin]:
    """The chain of manifests, one link a stage."""
    origins = []
    for stage in {each.name: each for each in record.stages}.values():
        try:
            path, manifest = artifacts.of(stage.name)
            parameters = json.dumps(manifest.config, indent=1, ensure_ascii=False)
        except (Missing, ArtifactError):
            path, manifest, parameters = None, None, ""
        origins.append(
            Origin(
                name=stage.name,
                path=path,
                digest=stage.digest,
                mlflow_run_id=stage.mlflow_run_id,
                manifest=manifest,
                parameters=parameters,
            )
        )
    return origins


def stage_notes(record: CycleRecord, events: Path) -> list[tuple[str, str]]:
    """What stages said of their decisions and fallbacks while they ran, by stage."""
    notes = []
    for name in dict.fromkeys(stage.name for stage in record.stages):
        try:
            seen, _ = read_events(events / f"{name}.jsonl")
            notes += [(name, str(event["text"])) for event in seen if event["kind"] == "note"]
        except (OSError, ValueError, KeyError) as error:
            notes.append((name, f"its events cannot be read: {error}"))
    return notes


def corpus_profile(record: CycleRecord, artifacts: Artifacts, out: Path) -> tuple[str, str]:
    """Draw the corpus' own page beside this one, and link to it. Raises Missing, and removes an older one, when this
    cycle has no profile."""
    try:
        report, _ = artifacts.find("corpus_report")
        if not (report / PROFILE).is_file():
            raise Missing(f"{report} holds no {PROFILE}.")
    except (Missing, ArtifactError):
        out.unlink(missing_ok=True)
        raise
    return "profile of the corpus", profile_page.render(report, out, record.cycle_id).name


def links(record: CycleRecord, out: Path, artifacts: Artifacts, state: Path) -> list[tuple[str, str]]:
    """Files of this cycle that a browser can show, relative to the page."""
    wanted = {
        "cycle.json, this page for scripts": out.parent / "cycles" / f"{record.cycle_id}.json",
    }
    for kind, name in (("evaluation", "figures.json"), ("training_plan", "plan.json")):
        if kind in artifacts.stages:
            wanted[f"{name}, the {kind.replace('_', ' ')}"] = artifacts.stages[kind].output / name
    for stage in artifacts.stages.values():
        wanted[f"Data Docs of {stage.name}"] = state / "docs" / stage.name / "index.html"
    return [(text, os.path.relpath(path, out.parent)) for text, path in wanted.items() if path.is_file()]


def request(record: CycleRecord) -> str | None:
    """The request that was answered, for a shell."""
    if record.serving is None:
        return None
    body = json.dumps({"model": "overnight", "prompt": record.serving.prompt, "max_tokens": 64}, ensure_ascii=False)
    url = shlex.quote(f"{record.serving.url.rstrip('/')}/v1/completions")
    return f"curl -s {url} -H 'content-type: application/json' \\\n  -d {shlex.quote(body)}"


def _section(build: Callable[[], Section]) -> Section | Absent:
    """A section, or why there is none: the page is there most of all for the cycles that went wrong."""
    try:
        return build()
    except (Missing, ArtifactError, OSError, PolarsError, ValueError, TypeError) as error:
        return Absent(reason=one_line(error, 300))
