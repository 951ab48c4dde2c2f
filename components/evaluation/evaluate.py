"""Measure every model of the cycle: before and after pretraining, fine-tuning and alignment.

Reads   data/tokens (held-out documents, token counts), data/clean (for contamination), and the three models
Writes  metrics.json: model -> suite -> metric -> {value, low, high, n}, with value_clean and n_clean where items are
        contaminated; items.parquet: model, suite, item, metric, value, weight; contamination.parquet: suite, item,
        overlap, contaminated; answers.parquet: what each model answered the safety suites, prompts that were made by
        mutation included; summary.csv: the same figures as a table
Covers: bits per byte beside xz -9 and a unigram model (the state before pretraining), next line, infilling, share of
functions that parse, pass@k; refusal, harmful compliance and over-refusal, canaries, memorised training text, and how
far the judge agrees with labels by hand; every model is asked the same, so items pair up between models.
Not covered: whether answers to instructions help, languages beside Python in parse_share and pass@k.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from components.core import artifact
from components.core.artifact import Manifest
from components.core.events import Events
from components.core.step import main
from components.evaluation.config import EvaluateConfig
from components.evaluation.contamination import counts, overlaps, training_texts
from components.evaluation.functional import Suite, built_in_suite
from components.evaluation.likelihood import unigram_bits_per_byte
from components.evaluation.measure import Metrics, Questions, Report, measure, questions, summarise, unigram_items
from components.evaluation.memorisation import training_windows
from components.evaluation.safety import safety_questions
from components.execution.sandbox import isolation
from components.tokens.store import TokenStore
from components.tokens.text import TextCodec

VALIDATION = "validation.parquet"
METRICS = "metrics.json"
ITEMS = "items.parquet"
CONTAMINATION = "contamination.parquet"
ANSWERS = "answers.parquet"


def read_questions(tokens: Path, suites: Sequence[Suite], config: EvaluateConfig, *, safety: bool = True) -> Questions:
    """The questions that a data/tokens artifact allows, those of the safety suites where they are asked for."""
    asked = questions(pl.read_parquet(tokens / VALIDATION, columns=["id", "text"]), suites, config)
    if not safety:
        return asked
    windows = training_windows(tokens, config.safety, config.seed)
    return replace(asked, safety=safety_questions(config.safety, windows, config.seed))


def evaluate_model(
    model_dir: Path, asked: Questions, config: EvaluateConfig, report: Report = lambda _: None
) -> tuple[Metrics, pl.DataFrame]:
    """Metrics (under the directory's name) and items of one model."""
    items = measure(model_dir.name, model_dir, asked, config, report)
    return summarise(items, config), items


def unigram(tokens: Path, tokenizer: Path, asked: Questions) -> pl.DataFrame:
    """Items of the model before pretraining: frequencies of the training tokens."""
    codec = TextCodec(tokenizer)
    counts = TokenStore(tokens, "train").counts(codec.vocabulary_size)
    documents = codec.encode_batch(asked.documents["text"].to_list())
    return unigram_items(unigram_bits_per_byte(counts, documents, asked.num_bytes, codec.special.end_of_text), asked)


def run(
    config: EvaluateConfig, *, tokens: Path, source: Path, base: Path, sft: Path, aligned: Path, out: Path
) -> Manifest:
    """Measure every model on the same questions. Raises ArtifactError for a model that cannot be read."""
    models = {"base": base, "sft": sft, "aligned": aligned}
    inputs = [artifact.read(path) for path in (tokens, source, *models.values())]
    events = Events("evaluate")
    suites = [built_in_suite(name) for name in config.functional.suites]
    asked = read_questions(tokens, suites, config)
    held_out = pl.read_parquet(tokens / VALIDATION, columns=["id", "text"])
    total = len(models) * (4 + len(suites))
    done = 0

    def report(step: str) -> None:
        nonlocal done
        done += 1
        events.progress(done, total, "suites")

    answered: list[pl.DataFrame] = []
    frames, seconds = [unigram(tokens, base, asked)], {}
    for name, directory in models.items():
        started = time.monotonic()
        frames.append(measure(name, directory, asked, config, report, keep=answered.append))
        seconds[name] = time.monotonic() - started
    items = pl.concat(frames)
    training = training_texts(source, held_out["id"])
    overlap = overlaps(items, held_out, suites, training, config.contamination)
    metrics = summarise(items, config, overlap.filter("contaminated"))
    with artifact.create(out, stage="evaluate", config=config, inputs=inputs, code=Path(__file__)) as draft:
        draft.rows[ITEMS] = len(items)
        draft.rows["summary.csv"] = write(metrics, items, draft.path)
        draft.rows[CONTAMINATION] = len(overlap)
        overlap.write_parquet(draft.path / CONTAMINATION, compression="zstd")
        draft.rows[ANSWERS] = sum(map(len, answered))
        pl.concat(answered).write_parquet(draft.path / ANSWERS, compression="zstd")
        draft.statistics = {
            "documents": len(asked.documents),
            "bytes": int(asked.num_bytes.sum()),
            "suites": {suite.name: len(suite.tasks) for suite in suites},
            "suite_digests": {suite.name: suite.digest for suite in suites},
            "contamination": counts(overlap),
            "safety": asked.safety.statistics if asked.safety else {},
        }
        draft.run["seconds_per_model"] = seconds
        draft.run["isolation"] = isolation()
    for model, suite, metric, each in rows_of(metrics):
        events.metric(f"{model}/{suite}/{metric}", each["value"])
    assert draft.manifest is not None
    return draft.manifest


def rows_of(metrics: Metrics) -> list[tuple[str, str, str, dict[str, float | int]]]:
    """(model, suite, metric, estimate) of every metric, in order."""
    return [
        (model, suite, metric, each)
        for model, suites in metrics.items()
        for suite, values in suites.items()
        for metric, each in values.items()
    ]


def write(metrics: Metrics, items: pl.DataFrame, directory: Path) -> int:
    """metrics.json, items.parquet and summary.csv; returns the rows of the last."""
    (directory / METRICS).write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    items.write_parquet(directory / ITEMS, compression="zstd")
    rows = [
        {"model": model, "suite": suite, "metric": metric, **each} for model, suite, metric, each in rows_of(metrics)
    ]
    pl.DataFrame(rows, infer_schema_length=None).write_csv(directory / "summary.csv", float_precision=6)
    return len(rows)


if __name__ == "__main__":
    main("evaluate", EvaluateConfig, run)
