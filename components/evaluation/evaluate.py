"""Measure every model of the cycle: before and after pretraining, fine-tuning and alignment.

Reads   data/tokens (held-out documents, token counts), data/clean (for contamination and canaries), and the models
Writes  figures.json: model -> suite -> metric -> {value, low, high, n}, with value_clean and n_clean where items are
        contaminated; items.parquet: model, suite, item, metric, value, weight; contamination.parquet: suite, item,
        overlap, contaminated; calibration.parquet: model, confidence, accuracy, places of each bin; answers.parquet:
        what each model answered the safety suites, prompts that were made by mutation included; summary.csv: the same
        figures as a table; metrics.json: the few that DVC shows. Times stand in metrics.json and in the manifest under
        `run`, which are no part of the digest
Covers: bits per byte, by language, source and length too, beside xz -9, a model of n-grams and one of single tokens
(the state before pretraining); calibration and names from the same pass; next line and block, infilling of a line,
several and any span, documents with related files of their package before them, share of functions and of filled
documents that parse, pass@k, latency; refusal, harmful compliance and over-refusal, canaries, memorised training text,
and how far the judge agrees with labels by hand; every model is asked the same, so items pair up between models.
Not covered: whether answers to instructions help, functions of languages beside Python.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from components.core import artifact
from components.core.artifact import Draft, Manifest
from components.core.columns import read_columns
from components.core.events import Events
from components.core.step import main
from components.data.documents.canaries import canaries, copies_in
from components.evaluation.config import EvaluateConfig
from components.evaluation.measures.answers import held_out
from components.evaluation.measures.contamination import counts, looked_for, overlaps, training_texts
from components.evaluation.measures.functional import Suite, built_in_suite
from components.evaluation.measures.headline import headline
from components.evaluation.measures.latency import LATENCY, latency_items, latency_metrics, record
from components.evaluation.measures.likelihood import ngram_bits_per_byte, related_documents, unigram_bits_per_byte
from components.evaluation.measures.model_measures import (
    Metrics,
    Questions,
    Report,
    baseline_items,
    measure,
    questions_of,
    summarise,
)
from components.evaluation.measures.ngram import NgramModel
from components.evaluation.safety.memorisation import training_windows
from components.evaluation.safety.suites import safety_questions
from components.execution.sandbox import walls, warning
from components.tokens.encoding.codec import TextCodec
from components.tokens.shards.token_store import TokenStore, documents_path

STAGE = "evaluate"
VALIDATION = "validation.parquet"
FIGURES = "figures.json"
METRICS = "metrics.json"
ITEMS = "items.parquet"
CONTAMINATION = "contamination.parquet"
# Files of a model that engines and tokenizers read.
READ = ("*.safetensors", "config.json", "generation_config.json", "token*", "special_tokens_map.json", "*.jinja")


def read_questions(
    tokens: Path,
    suites: Sequence[Suite],
    config: EvaluateConfig,
    instructions: Path | None = None,
    source: Path | None = None,
) -> Questions:
    """The questions that a data/tokens artifact allows, and those of data/instructions and data/clean artifacts."""
    documents = read_columns(tokens / VALIDATION, ["id", "text", "language"])
    sources = read_columns(documents_path(tokens, "validation"), ["id", "source"])
    questions = questions_of(documents.join(sources, on="id", how="left", maintain_order="left"), suites, config)
    windows = training_windows(tokens, config.safety, config.seed)
    asked = held_out(instructions, config.answers) if instructions else {}
    related = related_documents(tokens, source, config.repository, config.seed) if source else ()
    safety = safety_questions(config.safety, windows, config.seed)
    return replace(questions, instructions=asked, repository=related, safety=safety)


def evaluate_model(
    model_dir: Path, questions: Questions, config: EvaluateConfig, report: Report = lambda _: None
) -> tuple[Metrics, pl.DataFrame]:
    """Metrics (under the directory's name) and items of one model."""
    items = measure(model_dir.name, model_dir, questions, config, report)
    return summarise(items, config), items


def baselines(tokens: Path, tokenizer: Path, questions: Questions, config: EvaluateConfig) -> pl.DataFrame:
    """Items of what is no model of the cycle: frequencies of the training tokens (the state before pretraining), their
    n-grams, and xz."""
    codec, store = TextCodec(tokenizer), TokenStore(tokens, "train")
    documents = codec.encode_batch(questions.documents["text"].to_list())
    end, num_bytes, options = codec.special.end_of_text, questions.num_bytes, config.likelihood
    model = NgramModel(store.sample(options.ngram_max_tokens), codec.vocabulary_size, options.ngram_order)
    bits_by_name = {
        "unigram": unigram_bits_per_byte(store.counts(codec.vocabulary_size), documents, num_bytes, end),
        "ngram": ngram_bits_per_byte(model, documents, num_bytes, end),
        "xz": questions.xz_bits_per_byte,
    }
    return pl.concat([baseline_items(name, bits, questions) for name, bits in bits_by_name.items()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What needs no model: items of the baselines, how much of each question is in training, canaries that arrived."""

    baselines: pl.DataFrame
    overlaps: pl.DataFrame
    planted: dict[str, dict[str, int]]


def beside(tokens: Path, source: Path, tokenizer: Path, questions: Questions, config: EvaluateConfig) -> Beside:
    """Counts over the training documents."""
    held_out = pl.read_parquet(tokens / VALIDATION, columns=["id", "text"])
    texts = training_texts(source, held_out["id"])
    return Beside(
        baselines=baselines(tokens, tokenizer, questions, config),
        overlaps=looked_for(held_out, questions.suites, texts, config.contamination),
        planted=copies_in(training_texts(source, held_out["id"]), canaries(config.safety.canaries)),
    )


def measured(
    models: Mapping[str, Path], questions: Questions, config: EvaluateConfig, events: Events
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame], dict[str, float]]:
    """Items of every model, the tables that stand beside them by file name, and the seconds of each model."""
    kept: dict[str, list[pl.DataFrame]] = {}
    total, done = len(models) * questions.num_steps, 0

    def report(step: str) -> None:
        nonlocal done
        done += 1
        events.progress(done, total, "suites")

    def keep(name: str, rows: pl.DataFrame) -> None:
        kept.setdefault(name, []).append(rows)

    frames, seconds = [], {}
    for name, directory in models.items():
        started = time.monotonic()
        frames.append(measure(name, directory, questions, config, report, keep=keep))
        seconds[name] = time.monotonic() - started
    return pl.concat(frames), {name: pl.concat(tables) for name, tables in kept.items()}, seconds


def same_as(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Models whose files (READ) are those of an earlier one, which is the value: alignment may pass its input on."""
    first: dict[frozenset[tuple[str, str]], str] = {}
    twins = {}
    for name, manifest in manifests.items():
        files = frozenset((each.path, each.sha256) for each in manifest.files if any(map(Path(each.path).match, READ)))
        if first.setdefault(files, name) != name:
            twins[name] = first[files]
    return twins


def with_twins(rows: pl.DataFrame, twins: Mapping[str, str]) -> pl.DataFrame:
    """Rows (with a column model), and those of each model that is the same as another, under its own name."""
    copies = (rows.filter(model=first).with_columns(model=pl.lit(name)) for name, first in twins.items())
    return pl.concat([rows, *copies])


def run(
    config: EvaluateConfig,
    *,
    tokens: Path,
    source: Path,
    instructions: Path,
    base: Path,
    sft: Path,
    aligned: Path,
    out: Path,
) -> Manifest:
    """Measure every model on the same questions. Raises ArtifactError for a model that cannot be read."""
    models = {each.name: each for each in (base, sft, aligned)}
    manifests = {name: artifact.read(path) for name, path in models.items()}
    inputs = [artifact.read(path) for path in (tokens, source, instructions)] + [*manifests.values()]
    twins = same_as(manifests)
    distinct = {name: path for name, path in models.items() if name not in twins}
    events = Events(STAGE)
    if words := warning():
        events.note(words)
    suites = [built_in_suite(name) for name in config.functional.suites]
    questions = read_questions(tokens, suites, config, instructions, source)
    with ThreadPoolExecutor(1) as executor:  # samples drawn by a seed need one thread: this fills the others
        counting = executor.submit(beside, tokens, source, base, questions, config)
        model_items, kept, seconds = measured(distinct, questions, config, events)
        known = counting.result()
    items = pl.concat([known.baselines, with_twins(model_items, twins)])
    times = with_twins(latency_items(distinct, questions.documents["text"].to_list(), config.latency), twins)
    latency = latency_metrics(times, config)
    overlap = overlaps(items, known.overlaps, questions.suites, config.contamination)
    metrics = summarise(items, config, overlap.filter("contaminated"))
    tables = {CONTAMINATION: overlap, **{each: with_twins(kept[each], twins) for each in kept}}
    with evaluation(out, config, inputs, metrics, items, tables) as draft:
        write_metrics(headline(metrics["aligned"] | latency["aligned"], manifests["base"].run), draft)
        draft.statistics = {
            "documents": len(questions.documents),
            "bytes": int(questions.num_bytes.sum()),
            "suites": {suite.name: len(suite.tasks) for suite in questions.suites},
            "suite_digests": {suite.name: suite.digest for suite in questions.suites},
            "contamination": counts(overlap),
            "safety": questions.safety.statistics if questions.safety else {},
            "canaries_in_training": known.planted,
            "same_as": twins,
        }
        draft.run |= {"seconds_per_model": seconds, LATENCY: record(latency), "isolation": walls()}
    for model, suite, metric, each in [*rows_of(metrics), *rows_of(latency)]:
        events.metric(f"{model}/{suite}/{metric}", each["value"])
    for kind, arrived in known.planted.items():
        events.metrics({f"canaries_in_training/{kind}/{name}": count for name, count in arrived.items()})
    assert draft.manifest is not None
    return draft.manifest


@contextmanager
def evaluation(
    out: Path,
    config: EvaluateConfig,
    inputs: Sequence[Manifest],
    metrics: Metrics,
    items: pl.DataFrame,
    tables: Mapping[str, pl.DataFrame],
) -> Iterator[Draft]:
    """An artifact with what was measured, as `compare` and the gate read it; the caller adds statistics and times."""
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        draft.rows |= {ITEMS: len(items), "summary.csv": write(metrics, items, draft.path)}
        for name, table in tables.items():
            draft.rows[name] = len(table)
            table.write_parquet(draft.path / name, compression="zstd")
        yield draft


def rows_of(metrics: Metrics) -> list[tuple[str, str, str, dict[str, float | int]]]:
    """(model, suite, metric, estimate) of every metric, in order."""
    return [
        (model, suite, metric, each)
        for model, suites in metrics.items()
        for suite, values in suites.items()
        for metric, each in values.items()
    ]


def write_metrics(figures: Mapping[str, float], draft: artifact.Draft) -> None:
    """metrics.json, which holds times."""
    (draft.path / METRICS).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draft.timed.add(METRICS)


def write(metrics: Metrics, items: pl.DataFrame, directory: Path) -> int:
    """figures.json, items.parquet and summary.csv; returns the rows of the last."""
    (directory / FIGURES).write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    items.write_parquet(directory / ITEMS, compression="zstd")
    rows = [
        {"model": model, "suite": suite, "metric": metric, **each} for model, suite, metric, each in rows_of(metrics)
    ]
    pl.DataFrame(rows, infer_schema_length=None).write_csv(directory / "summary.csv", float_precision=6)
    return len(rows)


if __name__ == "__main__":
    main(STAGE, EvaluateConfig, run)
