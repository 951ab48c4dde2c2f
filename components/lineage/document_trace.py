"""One document from its source to the models that saw it, and what it takes to have it forgotten.

Reads artifacts of the workspace, the registry, the environment repository, DVC's cache; writes only the opt-out list.
Works on what is there, and says which stage has not run, and which artifact was made from another one than lies here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from components.core.config import Settings
from components.core.errors import DataError, OvernightError
from components.core.graph.stages import Stage, read_stages
from components.data.intake import opt_out
from components.lineage import documents, models
from components.lineage.chain import Chain, Held, by_digest, by_kind, chain, in_cache, in_directory
from components.lineage.training_reads import reads, token_range
from components.release import registry
from components.release.config import ReleaseConfig
from components.release.registry import RegisteredVersion

# What a document goes through, by the kind of what each stage leaves.
KINDS = (
    *("raw_documents", "checked_documents", "clean_documents", "tokenizer", "tokens", "training_plan", "base_model"),
    *("tuned_model", "preference_pairs", "aligned_model"),
)
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where answers are looked for beside the workspace's artifacts."""

    settings: Settings
    release: ReleaseConfig
    opt_out: Path
    cache: Callable[[], Path]  # the objects of DVC's cache; asked for only where artifacts are missing


def trace(reference: str, sources: Sources) -> Record:
    """All that is known of a document; None where a stage has not run. Raises DataError for one that nobody knows."""
    stages = stages_by_kind()
    held = {kind: output for kind, stage in stages.items() if (output := in_directory(stage.output)) is not None}
    identity = documents.identify(reference, held.get("raw_documents"))
    notes = [not_there(stage) for kind, stage in stages.items() if kind not in held]
    notes += _made_from_others(held, stages)
    raw, checked, clean = (held.get(kind) for kind in ("raw_documents", "checked_documents", "clean_documents"))
    copies = documents.copies(raw, identity) if raw else []
    versions = _versions(sources, held, identity, notes)
    entry = _opted_out(sources.opt_out, identity, copies)
    if not copies and not entry and not any(each["saw"] for each in versions or []):
        raise DataError(
            f"{reference}: no document of the corpus has this id, and no registered model is known to have it"
        )
    return {
        "id": identity,
        "opted_out": entry,
        "copies": copies,
        "check_raw": _verdict(checked, identity) if checked else None,
        "clean": _decision(clean, identity) if clean else None,
        **_training(held, identity),
        "models": [
            {"stage": stage.name, "digest": held[kind].digest}
            | asdict(models.seen(_chain(held[kind], held.values(), stages), kind, identity))
            for kind, stage in stages.items()
            if stage.meta.model and kind in held
        ],
        "versions": versions,
        "notes": notes,
    }


def forget(reference: str, sources: Sources, *, reason: str, near: bool) -> Record:
    """Trace a document, and add it to the opt-out list; with its near copies in this corpus, if asked. Repeatable.

    No cycle may run meanwhile: ingest must not see the list change.
    """
    answer, listing = trace(reference, sources), sources.opt_out
    copies = answer["clean"]["near_copies"] if answer["clean"] else []
    wanted = {answer["id"]: answer["copies"][0]["path"] if answer["copies"] else None}
    wanted |= {each["id"]: each["path"] for each in copies if near}
    added = [
        identity
        for identity, path in wanted.items()
        if opt_out.add(listing, opt_out.Entry(id=identity, known_as=path, reason=reason or None))
    ]
    listed = {entry.id for entry in opt_out.read(listing)}
    staying = [each for each in copies if each["id"] not in listed]
    return answer | {
        "opt_out": {
            "file": str(listing),
            "added": added,
            "listed_before": [each for each in wanted if each not in added],
        },
        "near_copies_that_stay": staying,
        "next": _next(answer, staying),
    }


def stages_by_kind() -> dict[str, Stage]:
    """The stages that a document goes through, in their order."""
    return {each.meta.writes: each for each in read_stages() if each.meta.writes in KINDS}


def not_there(stage: Stage) -> str:
    """What is said of a stage that has left nothing yet."""
    return f"{stage.output}: not there, {stage.name} has not run yet"


def _chain(last: Held, known: Iterable[Held], stages: Mapping[str, Stage]) -> Chain:
    return by_kind(chain(last, by_digest(known)), stages.values())


def _made_from_others(held: Mapping[str, Held], stages: Mapping[str, Stage]) -> list[str]:
    """A note for every artifact that was made from another one than lies here."""
    notes = []
    here = {stages[kind].name: (stages[kind].output, each.digest) for kind, each in held.items()}
    for kind, each in held.items():
        for made_from in each.manifest.inputs:
            path, digest = here.get(made_from.stage, (None, made_from.digest))
            if digest != made_from.digest:
                notes.append(
                    f"{stages[kind].output}: was made from another {path} ({made_from.digest[:12]}) than "
                    f"lies here ({digest[:12]}); run `overnight cycle`"
                )
    return notes


def _opted_out(path: Path, identity: str, copies: list[Record]) -> Record | None:
    """The entry of the opt-out list that names the document, its repository or its path."""
    if not path.exists():
        return None
    rows = pl.DataFrame(
        [{"id": identity, "package": each["package"], "path": each["path"], "author": None} for each in copies]
        or [{"id": identity, "package": None, "path": None, "author": None}],
        schema=dict.fromkeys(("id", "package", "path", "author"), pl.String),
    )
    for entry in opt_out.read(path):
        if rows.select(opt_out.opted_out([entry]).is_not_null().any()).item():
            return entry.model_dump(exclude_none=True)
    return None


def _verdict(checked: Held, identity: str) -> Record:
    broken = documents.quarantined(checked, identity)
    passed = documents.is_in(checked, identity)
    return {"verdict": "quarantined" if broken else "passed" if passed else "not there", "rules": broken}


def _decision(clean: Held, identity: str) -> Record:
    place, drops = documents.place(clean, identity), documents.drops(clean, identity)
    contaminated = documents.table(clean, "contaminated.parquet", pl.col("id") == identity)
    return {
        "decision": "kept" if place else "dropped" if drops else "not there",
        "drops": drops,
        "contaminated": [{name: each[name] for name in ("suite", "task_id", "overlap")} for each in contaminated],
        "redactions": documents.redactions(clean, identity),
        **(place or {"shard": None, "row": None, "cluster": None}),
        "near_copies": documents.near_copies(clean, identity),
    }


def _training(held: Mapping[str, Held], identity: str) -> Record:
    """tokens, training, instructions and preferences: None where the stage has not run or does not have it."""
    uses: Record = dict.fromkeys(("tokens", "training", "instructions", "preferences"))
    tokens = token_range(held["tokens"], identity) if "tokens" in held else None
    if tokens is not None:
        uses["tokens"] = asdict(tokens)
    base, plan = held.get("base_model"), held.get("training_plan")
    if tokens is not None and tokens.split == "train" and base is not None and plan is not None:
        made_from = {each.digest for each in base.manifest.inputs}
        if {held["tokens"].digest, plan.digest} <= made_from:
            read = reads(tokens, base, plan, held["tokens"])
            uses["training"] = {
                "windows": [read.first_window, read.last_window],
                "num_steps": read.num_steps,
                "reads": [
                    {"step": step, "epoch": epoch, "window": window}
                    for step, epoch, window in zip(
                        read.steps.tolist(), read.epochs.tolist(), read.windows.tolist(), strict=True
                    )
                ],
            }
    if "tuned_model" in held:
        uses["instructions"] = models.instructions(held["tuned_model"], identity)
    if "preference_pairs" in held:
        uses["preferences"] = models.preferences(held["preference_pairs"], identity)
    return uses


def _versions(sources: Sources, held: Mapping[str, Held], identity: str, notes: list[str]) -> list[Record] | None:
    """Every registered version: whether it saw the document, and where it serves. None when the registry or the
    environments do not answer; the note says why."""
    try:
        registered = registry.versions(sources.settings)
        environments = models.environments(sources.settings, sources.release)
    except OvernightError as error:
        notes.append(f"versions and environments are not known: {error}")
        return None
    known = by_digest(held.values())
    chains = {each.version: models.chain_of(sources.settings, each, known) for each in registered}
    if any(each.missing or not each.held for each in chains.values()):
        known |= in_cache(sources.cache())
        chains = {each.version: models.chain_of(sources.settings, each, known) for each in registered}
    stages = stages_by_kind()
    kinds = {stage.name: kind for kind, stage in stages.items()}

    def saw(version: RegisteredVersion) -> models.Seen:
        stage = version.tags.get("stage", "")
        return models.seen(by_kind(chains[version.version], stages.values()), kinds.get(stage, stage), identity)

    return [
        {"version": each.version, "digest": each.digest}
        | asdict(saw(each))
        | {"environments": environments.get(each.digest, [])}
        for each in registered
    ]


def _next(answer: Record, staying: list[Record]) -> list[str]:
    """What a person should know and do after a document was put on the list."""
    lines = []
    if answer["copies"]:
        lines.append(
            f"run `overnight cycle`: the text leaves at ingest, with its exact copies ({len(answer['copies'])} in all)"
        )
    else:
        lines.append("the text is not in the corpus; the list keeps it from coming in again")
    if staying:
        lines.append(
            f"near copies that are other texts: {len(staying)}; they stay, or come in where it stood in their way: "
            "look at them, and forget each by its id, or all with --near"
        )
    versions = answer["versions"] or []
    saw = [each for each in versions if each["saw"]]
    for each in saw:
        for row in each["environments"]:
            lines.append(
                f"version {each['version']} saw it and serves in {row['environment']} until another is promoted; "
                "the next cycle's model will not have seen it"
            )
    if idle := [str(each["version"]) for each in saw if not each["environments"]]:
        lines.append(f"registered and not serving, saw it: {', '.join(idle)}; do not promote, try or roll back to them")
    if unknown := [str(each["version"]) for each in versions if each["saw"] is None]:
        lines.append(f"not known for {', '.join(unknown)}: treat them as if they had seen it, or `dvc pull` their data")
    if answer["versions"] is None:
        lines.append("the registered models are not known now: repeat this when the registry answers")
    return lines
