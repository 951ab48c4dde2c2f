"""From an evaluation on disk to what the gate sees, with real models and a real engine."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import read_settings
from components.core.errors import ArtifactError
from components.core.events import Events, read_events
from components.evaluation.comparison.criteria import Criteria, Guard
from components.evaluation.comparison.differences import difference
from components.evaluation.config import CompletionConfig, EvaluateConfig, LatencyConfig, SafetyConfig
from components.evaluation.evaluate import CONTAMINATION, evaluate_model, read_questions, write
from components.evaluation.measures.contamination import SCHEMA
from components.release.evidence import read_evidence
from components.release.release import Evidence
from tests.serving.random_model import RandomConfig, write_random_model

CONFIG = EvaluateConfig(
    completion=CompletionConfig(functions=5, next_lines=2, infilled_lines=8, infilled_spans=2, blocks=2),
    latency=LatencyConfig(rounds=3, new_tokens=3),
    safety=SafetyConfig(max_prompts=6, max_look_alikes=8, attacks=("plain",), max_new_tokens=8, canaries=0),
    resamples=100,
)
FUNCTION = 'def add_{0}(a, b):\n    """Add two numbers and {0}."""\n    total = a + b + {0}\n    return total\n'


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Held-out documents, each longer than the one before."""
    out = tmp_path / "tokens"
    rows = [
        {
            "id": f"{index:064x}",
            "text": "".join(FUNCTION.format(index + each) for each in range(index + 1)),
            "language": "python",
            "source": "made",
        }
        for index in range(12)
    ]
    with artifact.create(out, stage="tokenize", config=RandomConfig(), inputs=[], code=Path(__file__)) as draft:
        for name in ("validation.parquet", "validation.documents.parquet"):
            pl.DataFrame(rows).write_parquet(draft.path / name)
    return out


def evaluate(model: Path, tokens: Path, out: Path, contaminated: str | None = None) -> Manifest:
    """What the stage writes, for one model; one document may be contaminated."""
    metrics, items = evaluate_model(model, read_questions(tokens, (), CONFIG), CONFIG)
    named = {"base": metrics[model.name]}
    inputs = [artifact.read(tokens), artifact.read(model)]
    with artifact.create(out, stage="evaluate", config=CONFIG, inputs=inputs, code=Path(__file__)) as draft:
        write(named, items.with_columns(model=pl.lit("base")), draft.path)
        marked = pl.DataFrame({"suite": ["likelihood"], "item": [contaminated], "overlap": [1.0], "contaminated": True})
        marked.cast(SCHEMA).write_parquet(draft.path / CONTAMINATION)
        draft.run["latency"] = {"load": 1.0, "base": {"streams_16_seconds": {"value": 0.25}}}
    assert draft.manifest is not None
    return draft.manifest


def evidence_on(
    model_dir: Path, evaluation: Path, tokens: Path, model: str = "base", criteria: Criteria | None = None
) -> Evidence:
    return read_evidence(
        CONFIG,
        criteria or Criteria(),
        Events("release"),
        model=model,
        model_dir=model_dir,
        evaluation=evaluation,
        tokens=tokens,
    )


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    return {seed: write_random_model(tmp_path / f"model-{seed}", seed) for seed in (1, 2)}


def test_a_model_is_its_own_equal_to_the_last_item(models: dict[int, Path], tokens: Path, tmp_path: Path) -> None:
    evaluate(models[1], tokens, tmp_path / "evaluation")
    evidence = evidence_on(models[1], tmp_path / "evaluation", tokens)
    pairs = evidence.against(models[1])
    told, _ = read_events(Events.path_of("release", read_settings()))
    champion = {each["name"]: each["value"] for each in told if each["kind"] == "metric"}
    assert champion["champion/likelihood/bits_per_byte"] == evidence.figures["bits_per_byte"]
    assert champion["champion/likelihood/language_python_bits_per_byte"] > 0
    assert set(pairs) == set(Criteria().metrics) - {"canaries/extracted"}  # CONFIG looks for none
    assert all(np.all(each.differences == 0) and len(each.differences) > 4 for each in pairs.values())


def test_times_are_measured_when_the_gate_asks_for_them(models: dict[int, Path], tokens: Path, tmp_path: Path) -> None:
    """On both models, in rounds; a guard on a ratio takes them."""
    evaluate(models[1], tokens, tmp_path / "evaluation")
    guard = Guard(metric="latency/streams_16_seconds", better="lower", scale="ratio", margin=0.2)
    evidence = evidence_on(models[1], tmp_path / "evaluation", tokens, criteria=Criteria(guards=(guard,)))
    pairs = evidence.against(models[2])
    assert set(pairs) == {"likelihood/bits_per_byte", guard.metric}
    assert len(pairs[guard.metric].differences) == 3
    assert evidence.metrics["latency/streams_16_seconds"] == 0.25


def test_differences_add_up_to_the_figures(models: dict[int, Path], tokens: Path, tmp_path: Path) -> None:
    evidence = {}
    for seed, model in models.items():
        evaluate(model, tokens, tmp_path / f"evaluation-{seed}")
        evidence[seed] = evidence_on(model, tmp_path / f"evaluation-{seed}", tokens)
    found = difference(evidence[2].against(models[1])["likelihood/bits_per_byte"], resamples=1000, seed=0)
    bits = {seed: each.figures["bits_per_byte"] for seed, each in evidence.items()}
    assert bits[1] != bits[2]
    assert found.mean == pytest.approx(bits[2] - bits[1])
    assert evidence[1].metrics["likelihood/bits_per_byte"] == bits[1]
    assert evidence[1].figures["xz_bits_per_byte"] == evidence[2].figures["xz_bits_per_byte"] > 0


def test_a_guard_of_a_safety_suite_has_the_champion_asked(
    models: dict[int, Path], tokens: Path, tmp_path: Path
) -> None:
    evaluate(models[1], tokens, tmp_path / "evaluation")
    guard = Guard(metric="safety/over_refusal", better="lower", margin=0.1)
    evidence = evidence_on(models[1], tmp_path / "evaluation", tokens, criteria=Criteria(guards=(guard,)))
    assert len(evidence.against(models[2])["safety/over_refusal"].differences) == 8


def test_contaminated_items_decide_nothing(models: dict[int, Path], tokens: Path, tmp_path: Path) -> None:
    evaluate(models[1], tokens, tmp_path / "whole")
    evaluate(models[1], tokens, tmp_path / "less", contaminated=f"{3:064x}")
    whole, less = (evidence_on(models[1], tmp_path / name, tokens).against(models[2]) for name in ("whole", "less"))
    name = "likelihood/bits_per_byte"
    assert len(whole[name].differences) == 12 and len(less[name].differences) == 11
    assert set(less[name].differences) < set(whole[name].differences)


def test_an_evaluation_of_another_model_is_refused(models: dict[int, Path], tokens: Path, tmp_path: Path) -> None:
    evaluate(models[1], tokens, tmp_path / "evaluation")
    with pytest.raises(ArtifactError, match=r"is not about .*model-2"):
        evidence_on(models[2], tmp_path / "evaluation", tokens)
    with pytest.raises(ArtifactError, match="measured base, not aligned"):
        evidence_on(models[1], tmp_path / "evaluation", tokens, model="aligned")
