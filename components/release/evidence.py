"""What an evaluation says about a candidate, in the terms of the gate."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from components.core import artifact
from components.core.errors import ArtifactError
from components.core.events import Events
from components.evaluation.compare import paired
from components.evaluation.config import EvaluateConfig
from components.evaluation.evaluate import read_questions
from components.evaluation.measure import BITS_PER_BYTE, COMPLETION, LIKELIHOOD, PARSE_SHARE, figures, measure
from components.release.gate import Paired
from components.release.release import Evidence

GATED = ((LIKELIHOOD, BITS_PER_BYTE), (COMPLETION, PARSE_SHARE))


def read_evidence(
    config: EvaluateConfig, events: Events, *, model: str, model_dir: Path, evaluation: Path, tokens: Path
) -> Evidence:
    """The evidence of an evaluation report on one of its models (base, sft, aligned).

    A champion is measured once the gate asks for it, on the held-out documents of `tokens`, as the candidate was.
    Raises ArtifactError when the report is about other files than those in `model_dir`.
    """
    digest = artifact.read(model_dir).digest
    if digest not in {each.digest for each in artifact.read(evaluation).inputs}:
        raise ArtifactError(f"{evaluation}: is not about {model_dir} ({digest[:12]}); run `dvc repro evaluate` again")
    measured = json.loads((evaluation / "metrics.json").read_bytes())
    if model not in measured:
        raise ArtifactError(f"{evaluation}: measured {', '.join(measured)}, not {model}; release one of these")
    metrics = measured[model]
    items = pl.read_parquet(evaluation / "items.parquet").filter(pl.col("model") == model)
    return Evidence(
        figures=figures(metrics),
        metrics=flat(metrics),
        against=partial(_against, config, events, items, tokens),
    )


def flat(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """suite/metric -> value, for a registry that knows numbers only."""
    return {
        f"{suite}/{metric}": float(each["value"])
        for suite, values in metrics.items()
        for metric, each in values.items()
    }


def _against(
    config: EvaluateConfig, events: Events, candidate: pl.DataFrame, tokens: Path, champion_dir: Path
) -> dict[str, Paired]:
    """The candidate's items beside the champion's, which is asked no more than the gate compares."""
    artifact.read(tokens)
    asked = replace(read_questions(tokens, (), config), next_lines=(), infilled_lines=())
    champion = measure("champion", champion_dir, asked, config, events.note)
    pairs = {}
    for suite, metric in GATED:
        rows = paired(candidate, champion, suite, metric)
        differences = (rows["candidate"] - rows["champion"]).to_numpy()
        pairs[metric] = Paired(differences=differences, weights=rows["weight"].to_numpy())
    return pairs
