"""Measure one model: every suite, every item. Pure of the stage, so that commands and the release gate use it as well.

Items are a table with one row per model, suite, item and metric: value, and weight (bytes of a document, else 1). The
same validation documents, config and seed give the same items for every model, in the same order: they pair up.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.core.errors import DataError
from components.evaluation.completion import edit_similarity, functions_parse, infilled_lines, next_lines
from components.evaluation.config import CompletionConfig, EvaluateConfig, FunctionalConfig
from components.evaluation.functional import Suite, num_passed, pass_at_k
from components.evaluation.intervals import Estimate, bootstrap, wilson
from components.evaluation.likelihood import bits_per_byte, xz_bits_per_byte
from components.evaluation.places import FunctionPlace, LinePlace, function_places, line_places
from components.evaluation.safety import SafetyQuestions, measure_safety
from components.evaluation.safety_chat import answers_table
from components.inference.engine import Engine
from components.inference.open import EngineName, open_engine
from components.tokens.split import sample_of
from components.tokens.text import TextCodec

LIKELIHOOD = "likelihood"
COMPLETION = "completion"
INFILLING = "infilling"
BITS_PER_BYTE = "bits_per_byte"
XZ_BITS_PER_BYTE = "xz_bits_per_byte"
PARSE_SHARE = "parse_share"
ITEM_SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "suite": pl.String,
        "item": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "weight": pl.Float64,
    }
)
PASS_AT = "pass_at_"
# Means of values that are not bounded, or that are bounded but rarely zero or one, are resampled.
BOOTSTRAPPED = (BITS_PER_BYTE, XZ_BITS_PER_BYTE, "edit_similarity", "kappa", "exposure_bits")

Report = Callable[[str], None]
Metric = tuple[str, Sequence[str], Iterable[float], Iterable[float] | None]
Metrics = dict[str, dict[str, dict[str, dict[str, float | int]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What every model is asked: documents to predict, places to write at, programs to complete, requests to answer."""

    documents: pl.DataFrame
    next_lines: tuple[LinePlace, ...]
    infilled_lines: tuple[LinePlace, ...]
    functions: tuple[FunctionPlace, ...]
    suites: tuple[Suite, ...]
    xz_bits_per_byte: NDArray[np.float64]
    safety: SafetyQuestions | None = None

    @property
    def num_bytes(self) -> NDArray[np.float64]:
        """Bytes of each document's text, shape (documents,)."""
        return self.documents["text"].str.len_bytes().to_numpy().astype(np.float64)


def questions(validation: pl.DataFrame, suites: Sequence[Suite], config: EvaluateConfig) -> Questions:
    """Draw the questions from held-out documents (columns id, text). Raises DataError when they allow none."""
    if not len(validation):
        raise DataError("no held-out document to evaluate on; raise tokenize.validation_fraction")
    validation = validation.sort("id")
    sizes = validation["text"].str.len_bytes().cast(pl.Int64).to_numpy()
    documents = validation[sample_of(sizes, config.likelihood.max_bytes, config.seed)]
    ids, texts = validation["id"].to_list(), validation["text"].to_list()
    completion, seed = config.completion, config.seed
    drawn = documents["text"]
    return Questions(
        documents=documents,
        next_lines=tuple(line_places(ids, texts, completion.next_lines, seed)),
        infilled_lines=tuple(line_places(ids, texts, completion.infilled_lines, seed + 1)),
        functions=tuple(function_places(ids, texts, completion.functions, seed)),
        suites=tuple(suites),
        xz_bits_per_byte=xz_bits_per_byte(drawn.to_list(), drawn.str.len_bytes().to_numpy().astype(np.float64)),
    )


def measure(
    model: str,
    model_dir: Path,
    asked: Questions,
    config: EvaluateConfig,
    report: Report,
    engine_name: EngineName | None = None,
    keep: Callable[[pl.DataFrame], None] = lambda _: None,
) -> pl.DataFrame:
    """Items of one model on every question. `report` hears of each suite that is done, `keep` gets the answers to the
    safety suites (safety_chat.ANSWERS_SCHEMA).

    Raises ArtifactError for a model that cannot be read or that the engine does not cover.
    """
    codec = TextCodec(model_dir)
    engine = open_engine(model_dir, engine_name)
    steps: list[tuple[str, Callable[[], list[Metric]]]] = [
        (LIKELIHOOD, partial(_likelihood, engine, codec, asked)),
        (COMPLETION, partial(_completion, engine, codec, asked, config.completion)),
        (INFILLING, partial(_infilling, engine, codec, asked.infilled_lines, config.completion)),
        *(
            (each.name, partial(_functional, engine, codec, each, config.functional, config.seed))
            for each in asked.suites
        ),
    ]
    frames = []
    for suite, step in steps:
        frames += [_items(model, suite, *metric) for metric in step()]
        report(f"{model}: {suite}")
    if asked.safety is not None:
        measured, answered = measure_safety(engine, codec, asked.safety, config.safety, config.seed)
        frames += [_items(model, *each, weights=None) for each in measured]
        report(f"{model}: safety")
        keep(answers_table(model, answered))
    engine.close()
    return pl.concat(frames)


def _likelihood(engine: Engine, codec: TextCodec, asked: Questions) -> list[Metric]:
    ids, weights = asked.documents["id"].to_list(), asked.num_bytes
    bits = bits_per_byte(
        engine, codec.encode_batch(asked.documents["text"].to_list()), weights, codec.special.end_of_text
    )
    return [(BITS_PER_BYTE, ids, bits, weights), (XZ_BITS_PER_BYTE, ids, asked.xz_bits_per_byte, weights)]


def _completion(engine: Engine, codec: TextCodec, asked: Questions, config: CompletionConfig) -> list[Metric]:
    functions = functions_parse(engine, codec, asked.functions, config)
    return [
        *_line_metrics(asked.next_lines, next_lines(engine, codec, asked.next_lines, config)),
        (PARSE_SHARE, [place.item for place in asked.functions], map(float, functions), None),
    ]


def _infilling(engine: Engine, codec: TextCodec, places: Sequence[LinePlace], config: CompletionConfig) -> list[Metric]:
    return _line_metrics(places, infilled_lines(engine, codec, places, config))


def _line_metrics(places: Sequence[LinePlace], found: Sequence[str]) -> list[Metric]:
    items = [place.item for place in places]
    pairs = [(line, place.line.rstrip()) for line, place in zip(found, places, strict=True)]
    return [
        ("exact_match", items, [float(line == wanted) for line, wanted in pairs], None),
        ("edit_similarity", items, [edit_similarity(line, wanted) for line, wanted in pairs], None),
    ]


def _functional(engine: Engine, codec: TextCodec, suite: Suite, config: FunctionalConfig, seed: int) -> list[Metric]:
    items = [task.task_id for task in suite.tasks]
    metrics: list[Metric] = []
    for temperature in config.temperatures:
        passed = num_passed(engine, codec, suite, config, temperature, seed)
        suffix = f"_t{temperature:g}" if len(config.temperatures) > 1 else ""
        for k in config.k:
            values = [pass_at_k(config.num_samples, count, k) for count in passed]
            metrics.append((f"{PASS_AT}{k}{suffix}", items, values, None))
    return metrics


def _items(
    model: str, suite: str, metric: str, items: Sequence[str], values: Iterable[float], weights: Iterable[float] | None
) -> pl.DataFrame:
    """Rows of one metric, in the order of the items."""
    numbers = pl.Series("value", list(values), dtype=pl.Float64)
    frame = pl.DataFrame({"item": pl.Series(list(items), dtype=pl.String), "value": numbers})
    weight = pl.Series("weight", [1.0] * len(numbers) if weights is None else list(weights), dtype=pl.Float64)
    constants = (pl.lit(model).alias("model"), pl.lit(suite).alias("suite"), pl.lit(metric).alias("metric"))
    return frame.with_columns(weight, *constants).select(ITEM_SCHEMA.names())


def unigram_items(values: NDArray[np.float64], asked: Questions) -> pl.DataFrame:
    """Items of the model that knows only how often each token occurs."""
    return _items("unigram", LIKELIHOOD, BITS_PER_BYTE, asked.documents["id"].to_list(), values, asked.num_bytes)


def summarise(items: pl.DataFrame, config: EvaluateConfig, contaminated: pl.DataFrame | None = None) -> Metrics:
    """model -> suite -> metric -> {value, low, high, n}, in the order of the items.

    Where some of a metric's items are contaminated (columns suite, item), value_clean and n_clean are of the others;
    n_clean is 0 and value_clean not there when none is left.
    """
    metrics: Metrics = {}
    for (model, suite, metric), rows in items.group_by("model", "suite", "metric", maintain_order=True):
        found: dict[str, float | int] = asdict(estimate(str(metric), rows, config))
        if contaminated is not None:
            clean = rows.join(contaminated, on=["suite", "item"], how="anti", maintain_order="left")
            if len(clean) < len(rows):
                found["n_clean"] = len(clean)
            if 0 < len(clean) < len(rows):
                found["value_clean"] = estimate(str(metric), clean, config).value
        metrics.setdefault(str(model), {}).setdefault(str(suite), {})[str(metric)] = found
    return metrics


def estimate(metric: str, rows: pl.DataFrame, config: EvaluateConfig) -> Estimate:
    """The figure of one metric over its items."""
    values, weights = rows["value"].to_numpy(), rows["weight"].to_numpy()
    # Where all tasks have the same share (a small model passes none), resampling would promise a figure without error.
    varied_shares = metric.startswith(PASS_AT) and values.min() < values.max()
    if metric in BOOTSTRAPPED or varied_shares:
        return bootstrap(values, weights, confidence=config.confidence, resamples=config.resamples, seed=config.seed)
    return wilson(float(values.mean()), len(values), config.confidence)


def figures(metrics: Mapping[str, Mapping[str, Mapping[str, float | int]]]) -> dict[str, float]:
    """bits_per_byte, xz_bits_per_byte and parse_share of one model's metrics, for a release gate."""
    wanted = ((LIKELIHOOD, BITS_PER_BYTE), (LIKELIHOOD, XZ_BITS_PER_BYTE), (COMPLETION, PARSE_SHARE))
    return {metric: float(metrics[suite][metric]["value"]) for suite, metric in wanted if metric in metrics[suite]}
