"""Which models saw a document: those of this workspace and every registered version, and where they serve.

A model saw a document when its pretraining read a window with a token of it, or when an instruction or a preference
that it learned from was made from it. The answer comes from the artifacts behind the model, here or in DVC's cache;
where one of those is not at hand the answer is None, "not known", never no.
Covers: documents by id, so exact copies.  Not covered: near copies, the sample that the vocabulary was learned from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from components.core.config import Settings
from components.lineage import documents
from components.lineage.chain import Chain, Held, chain, in_directory, require
from components.lineage.training_reads import reads, token_range
from components.release import environment, registry
from components.release.config import ReleaseConfig
from components.release.registry import RegisteredVersion
from components.release.status import read_status

LINEAGE_TAG = "lineage."
# What each kind of model learned from, beside what the model learned from that it was made from.
LEARNED_IN = {
    "base_model": ("base_model",),
    "tuned_model": ("base_model", "tuned_model"),
    "aligned_model": ("base_model", "tuned_model", "preference_pairs"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Whether a model saw a document, None where that is not known, and what the answer rests on."""

    saw: bool | None
    why: str


def seen(model: Chain, kind: str, identity: str) -> Seen:
    """Whether a model of a kind saw a document. `model` is its chain by kinds."""
    if kind not in LEARNED_IN:
        return Seen(saw=None, why=f"it is of the kind {kind}, of which nothing is recorded")
    if not model.held:
        return Seen(saw=None, why="what it was made from is neither here nor in DVC's cache")
    answers = [_ANSWERS[part](model, identity) for part in LEARNED_IN[kind]]
    for saw in (True, None):
        reasons = [each.why for each in answers if each.saw is saw]
        if reasons:
            return Seen(saw=saw, why="; ".join(reasons))
    return Seen(saw=False, why="; ".join(each.why for each in answers))


def _pretrained(model: Chain, identity: str) -> Seen:
    """From the token files, or from an earlier artifact that the document is not in."""
    tokens, base, plan = (model.held.get(kind) for kind in ("tokens", "base_model", "training_plan"))
    if tokens is None:
        for kind in ("clean_documents", "checked_documents", "raw_documents"):
            if (held := model.held.get(kind)) is not None and not documents.is_in(held, identity):
                return Seen(saw=False, why=f"not in what {held.manifest.stage} gave it")
        return Seen(saw=None, why=_absent(model, "tokens", "its token files"))
    span = token_range(tokens, identity)
    if span is None:
        return Seen(saw=False, why="not among its tokens")
    if span.split == "validation":
        return Seen(saw=False, why="held out: measured on it, not trained on it")
    if base is None or plan is None:
        return Seen(saw=None, why=f"in its training split; {_absent(model, 'base_model', 'the record of its steps')}")
    read = reads(span, base, plan, tokens)
    if not read.steps.size:
        return Seen(saw=False, why=f"in its training split, read in none of {read.num_steps} steps")
    return Seen(saw=True, why=f"pretraining read it {read.steps.size} times")


def _instructed(model: Chain, identity: str) -> Seen:
    held = model.held.get("tuned_model")
    if held is None:
        return Seen(saw=None, why=_absent(model, "tuned_model", "its instructions"))
    count = len(instructions(held, identity))
    return Seen(saw=count > 0, why=f"instructions made from it: {count}")


def _preferred(model: Chain, identity: str) -> Seen:
    held = model.held.get("preference_pairs")
    if held is None:
        return Seen(saw=None, why=_absent(model, "preference_pairs", "its preferences"))
    count = preferences(held, identity)["pairs"]
    return Seen(saw=count > 0, why=f"preferences made from it: {count}")


_ANSWERS = {"base_model": _pretrained, "tuned_model": _instructed, "preference_pairs": _preferred}


def _absent(model: Chain, kind: str, what: str) -> str:
    digest = model.missing.get(kind)
    return f"{what}{f' ({digest[:12]})' if digest else ''} are neither here nor in DVC's cache"


def instructions(sft: Held, identity: str) -> list[str]:
    """Names of the functions of a document that fine-tuning learned from."""
    frame = pl.scan_parquet(require(sft, "instructions.parquet")).filter(pl.col("document") == identity)
    return [str(name) for name in frame.select("name").collect()["name"]]


def preferences(held: Held, identity: str) -> dict[str, int]:
    """How many prompts, answers and pairs were made from a document."""
    answers = pl.scan_parquet(require(held, "candidates.parquet")).filter(pl.col("document") == identity)
    prompts = answers.select("prompt").collect()["prompt"]
    pairs = pl.scan_parquet(require(held, "preferences.parquet")).filter(pl.col("prompt").is_in(prompts.implode()))
    return {
        "prompts": prompts.n_unique(),
        "answers": len(prompts),
        "pairs": int(pairs.select(pl.len()).collect().item()),
    }


def chain_of(settings: Settings, version: RegisteredVersion, known: Mapping[str, Held]) -> Chain:
    """What a registered version was made from, as far as it is at hand; its tags name what its files no longer can."""
    tagged = {name.removeprefix(LINEAGE_TAG): value for name, value in version.tags.items() if LINEAGE_TAG in name}
    tagged |= {name.removeprefix("input."): value for name, value in version.tags.items() if name.startswith("input.")}
    model = known.get(version.digest) or in_directory(registry.cached(settings, version.digest))
    ancestry = chain(model, known) if model is not None else Chain(held={}, missing={})
    held, missing = dict(ancestry.held), dict(ancestry.missing)
    for stage, digest in tagged.items():
        if stage not in held and digest in known:
            held[stage] = known[digest]
            missing.pop(stage, None)
        elif stage not in held:
            missing[stage] = digest
    return Chain(held=held, missing=missing)


def environments(settings: Settings, config: ReleaseConfig) -> dict[str, list[dict[str, Any]]]:
    """Where each model serves, by its digest: environment, desired_weight (percent, as Git asks) and live_weight (as
    the last reconcile left it)."""
    weights: dict[tuple[str, str], dict[str, int]] = {}
    for name in environment.names(settings, config):
        for each in environment.read(settings, name, config).file.versions:
            weights.setdefault((each.digest, name), {})["desired_weight"] = each.weight
    status = read_status(settings)
    for live in status.environments if status else ():
        for target in live.versions:
            weights.setdefault((target.digest, live.name), {})["live_weight"] = target.weight
    places: dict[str, list[dict[str, Any]]] = {}
    for (digest, name), row in sorted(weights.items()):
        places.setdefault(digest, []).append({"environment": name, "desired_weight": 0, "live_weight": 0, **row})
    return places
