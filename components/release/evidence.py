"""What an evaluation says about a candidate, in the terms of the gate."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from components.core import artifact
from components.core.errors import ArtifactError
from components.core.events import Events
from components.evaluation.comparison.compare import Sides, pairs_for
from components.evaluation.comparison.criteria import Criteria
from components.evaluation.comparison.pairs import Paired
from components.evaluation.config import EvaluateConfig
from components.evaluation.evaluate import CONTAMINATION, FIGURES, ITEMS, read_questions
from components.evaluation.measures.functional import built_in_suite
from components.evaluation.measures.latency import LATENCY, latency_items
from components.evaluation.measures.model_measures import figures, measure, narrowed, summarise
from components.release.release import Evidence


def read_evidence(
    config: EvaluateConfig,
    criteria: Criteria,
    events: Events,
    *,
    model: str,
    model_dir: Path,
    evaluation: Path,
    tokens: Path,
) -> Evidence:
    """The evidence of an evaluation report on one of its models (base, sft, aligned).

    A champion is measured once the gate asks for it, on the held-out documents of `tokens`, as the candidate was.
    Contaminated items are left out on both sides. Where the gate asks for a time, both are measured then, in turns:
    what the report says of times (`run` of its manifest) was measured at another hour.
    Raises ArtifactError when the report is about other files than those in `model_dir`.
    """
    digest, report = artifact.read(model_dir).digest, artifact.read(evaluation)
    if digest not in {each.digest for each in report.inputs}:
        raise ArtifactError(f"{evaluation}: is not about {model_dir} ({digest[:12]}); run `dvc repro evaluate` again")
    if not (evaluation / FIGURES).exists():
        raise ArtifactError(f"{evaluation}: has no {FIGURES}, older code wrote it; run `dvc repro evaluate` again")
    measured = json.loads((evaluation / FIGURES).read_bytes())
    if model not in measured:
        raise ArtifactError(f"{evaluation}: measured {', '.join(measured)}, not {model}; release one of these")
    metrics = measured[model]
    items = pl.read_parquet(evaluation / ITEMS).filter(pl.col("model") == model)
    contaminated = pl.read_parquet(evaluation / CONTAMINATION).filter("contaminated")
    return Evidence(
        figures=figures(metrics),
        metrics=flat({**metrics, LATENCY: report.run.get(LATENCY, {}).get(model, {})}),
        against=partial(_against, config, criteria, events, items, contaminated, tokens, model_dir),
    )


def flat(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """suite/metric -> value, for a registry that knows numbers only."""
    return {
        f"{suite}/{metric}": float(each["value"])
        for suite, values in metrics.items()
        for metric, each in values.items()
    }


def _against(
    config: EvaluateConfig,
    criteria: Criteria,
    events: Events,
    candidate: pl.DataFrame,
    contaminated: pl.DataFrame,
    tokens: Path,
    candidate_dir: Path,
    champion_dir: Path,
) -> dict[str, Paired]:
    """The candidate's items beside the champion's, which is asked no more than the gate compares."""
    artifact.read(tokens)
    suites = [built_in_suite(name) for name in config.functional.suites]
    questions = narrowed(read_questions(tokens, suites, config), criteria.metrics)
    champion = measure("champion", champion_dir, questions, config, events.note)
    champion_figures = flat(summarise(champion, config)["champion"])
    events.metrics({f"champion/{name}": value for name, value in champion_figures.items()})
    if any(name.startswith(f"{LATENCY}/") for name in criteria.metrics):
        directories = {"candidate": candidate_dir, "champion": champion_dir}
        times = latency_items(directories, questions.documents["text"].to_list(), config.latency)
        candidate, champion = (
            pl.concat([items, times.filter(pl.col("model") == name)])
            for name, items in (("candidate", candidate), ("champion", champion))
        )
    return pairs_for(criteria, Sides(candidates=(candidate,), champions=(champion,), contaminated=contaminated))
