"""Measure one model: every suite, every item. Pure of the stage, so that commands and the release gate use it as well.

Items are a table with one row per model, suite, item and metric: value, and weight (bytes or names of a document, else
1). The same validation documents, config and seed give the same items for every model, in the same order: they pair up.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.alignment.examples.instruction import Instruction
from components.core.errors import DataError
from components.core.figures.intervals import Estimate, bootstrap, wilson
from components.evaluation.config import (
    AnswersConfig,
    CompletionConfig,
    EvaluateConfig,
    FunctionalConfig,
    LikelihoodConfig,
)
from components.evaluation.measures.answers import ENDS, PASSES, answer
from components.evaluation.measures.calibration import calibration_errors, reliability
from components.evaluation.measures.completion import edit_similarity, functions_parse, next_blocks, next_lines
from components.evaluation.measures.functional import Suite, num_passed, pass_at_k
from components.evaluation.measures.identifiers import identifier_accuracy, identifiers
from components.evaluation.measures.infilling import Infilling, infilled, infilling_tasks, parse_shares
from components.evaluation.measures.likelihood import (
    REPOSITORY,
    WITH_CONTEXT,
    WITHOUT_CONTEXT,
    RelatedDocument,
    bits_per_byte,
    context_bits,
    predictions,
    slices,
    xz_bits_per_byte,
)
from components.evaluation.measures.places import FunctionPlace, Place, block_places, function_places, line_places
from components.evaluation.safety.red_team import answers_table
from components.evaluation.safety.suites import SafetyQuestions, measure_safety
from components.inference.engine import Engine, Prediction
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec
from components.tokens.shards.split import sample_of

LIKELIHOOD = "likelihood"
COMPLETION = "completion"
BITS_PER_BYTE = "bits_per_byte"
XZ_BITS_PER_BYTE = "xz_bits_per_byte"
IDENTIFIER_ACCURACY = "identifier_accuracy"
CALIBRATION_ERROR = "calibration_error"
EXACT_MATCH = "exact_match"
EDIT_SIMILARITY = "edit_similarity"
BLOCK = "block_"
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
# By the end of a name. Means of values that are not bounded, or are bounded but rarely zero or one, are resampled.
BOOTSTRAPPED = (BITS_PER_BYTE, EDIT_SIMILARITY, IDENTIFIER_ACCURACY, CALIBRATION_ERROR, "kappa", "exposure_bits")
RELIABILITY = "calibration.parquet"
ANSWERS = "answers.parquet"

Report = Callable[[str], None]
Keep = Callable[[str, pl.DataFrame], None]
Metric = tuple[str, Sequence[str], Iterable[float], Iterable[float] | None]
Metrics = dict[str, dict[str, dict[str, dict[str, float | int]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What every model is asked: documents to predict, places to write at, programs to complete, requests to answer.

    slices       rows of the documents that have a figure of their own, by name
    identifiers  where the names of each document lie, shape (names, 2)
    infilling    the tasks by suite
    repository   documents with related files of their package
    """

    documents: pl.DataFrame
    slices: Mapping[str, NDArray[np.int64]]
    identifiers: tuple[NDArray[np.int64], ...]
    xz_bits_per_byte: NDArray[np.float64]
    next_lines: tuple[Place, ...]
    blocks: tuple[Place, ...]
    functions: tuple[FunctionPlace, ...]
    infilling: Mapping[str, Infilling]
    suites: tuple[Suite, ...]
    repository: tuple[RelatedDocument, ...] = ()
    instructions: Mapping[str, tuple[Instruction, ...]] = field(default_factory=dict)
    safety: SafetyQuestions | None = None

    @property
    def num_bytes(self) -> NDArray[np.float64]:
        """Bytes of each document's text, shape (documents,)."""
        return _num_bytes(self.documents)

    @property
    def num_steps(self) -> int:
        """What `measure` reports of each model, one after another."""
        parts = sum(map(len, (self.infilling, self.suites, self.instructions)))
        return 2 + parts + bool(self.repository) + (self.safety is not None)


def questions_of(validation: pl.DataFrame, suites: Sequence[Suite], config: EvaluateConfig) -> Questions:
    """Draw the questions from held-out documents (columns id, text, language, source).

    Raises DataError when there are none.
    """
    if not len(validation):
        raise DataError("no held-out document to evaluate on; raise tokenize.validation_fraction")
    validation = validation.sort("id")
    sizes = validation["text"].str.len_bytes().cast(pl.Int64).to_numpy()
    documents = validation[sample_of(sizes, config.likelihood.max_bytes, config.seed)]
    ids, texts = validation["id"].to_list(), validation["text"].to_list()
    languages = dict(zip(ids, validation["language"].to_list(), strict=True))
    completion, seed = config.completion, config.seed
    num_bytes = _num_bytes(documents)
    named = zip(documents["text"].to_list(), documents["language"].fill_null("").to_list(), strict=True)
    return Questions(
        documents=documents,
        slices=slices(documents, num_bytes, config.likelihood),
        identifiers=tuple(identifiers(text, language) for text, language in named),
        xz_bits_per_byte=xz_bits_per_byte(documents["text"].to_list(), num_bytes),
        next_lines=tuple(line_places(ids, texts, completion.next_lines, seed)),
        blocks=tuple(block_places(ids, texts, completion.blocks, seed)),
        functions=tuple(function_places(ids, texts, completion.functions, seed)),
        infilling=infilling_tasks(ids, texts, languages, completion, seed),
        suites=tuple(suites),
    )


def narrowed(questions: Questions, metrics: Collection[str]) -> Questions:
    """The questions that some metrics (suite/metric) need; documents are always asked for."""
    lines, blocks, functions = (
        any(f"{COMPLETION}/{name}" in metrics for name in names)
        for names in ((EXACT_MATCH, EDIT_SIMILARITY), (BLOCK + EXACT_MATCH, BLOCK + EDIT_SIMILARITY), (PARSE_SHARE,))
    )
    wanted = {name.split("/")[0] for name in metrics}
    return replace(
        questions,
        next_lines=questions.next_lines if lines else (),
        blocks=questions.blocks if blocks else (),
        functions=questions.functions if functions else (),
        infilling={suite: task for suite, task in questions.infilling.items() if suite in wanted},
        suites=tuple(suite for suite in questions.suites if suite.name in wanted),
        repository=questions.repository if REPOSITORY in wanted else (),
        instructions={suite: asked for suite, asked in questions.instructions.items() if suite in wanted},
        safety=None if questions.safety is None else questions.safety.narrowed(wanted),
    )


def measure(
    model: str,
    model_dir: Path,
    questions: Questions,
    config: EvaluateConfig,
    report: Report,
    engine_name: str | None = None,
    keep: Keep = lambda *_: None,
) -> pl.DataFrame:
    """Items of one model on every question. `report` hears of each suite that is done, or cannot be; `keep` gets what
    is told beside items: the name of a file, and the model's rows of it.

    Raises ArtifactError for a model that cannot be read or that the engine does not cover.
    """
    codec = TextCodec(model_dir)
    engine = open_engine(model_dir, engine_name)
    infilling = questions.infilling
    if None in (codec.special.fim_prefix, codec.special.fim_suffix, codec.special.fim_middle):
        report(f"{model}: no infilling, its tokenizer has no tokens for it")
        infilling = {}
    repository = questions.repository
    if repository and codec.special.file_sep is None:
        report(f"{model}: no {REPOSITORY}, its tokenizer has no token that begins a file")
        repository = ()
    instructions = questions.instructions
    if instructions and codec.special.chat is None:
        report(f"{model}: no answers, its tokenizer has no tokens for chat")
        instructions = {}
    document_predictions = predictions(
        engine, codec.encode_batch(questions.documents["text"].to_list()), codec.special.end_of_text
    )
    plotted = reliability(document_predictions, config.likelihood.calibration_bins)
    keep(RELIABILITY, plotted.select(pl.lit(model).alias("model"), pl.all()))
    steps: list[tuple[str, Callable[[], list[Metric]]]] = [
        (LIKELIHOOD, partial(_likelihood, document_predictions, codec, questions, config.likelihood)),
        (COMPLETION, partial(_completion, engine, codec, questions, config.completion)),
        *(
            (suite, partial(_infilling, engine, codec, suite, task, config.completion))
            for suite, task in infilling.items()
        ),
        *(((REPOSITORY, partial(_repository, engine, codec, repository)),) if repository else ()),
        *(
            (each.name, partial(_functional, engine, codec, each, config.functional, config.seed))
            for each in questions.suites
        ),
        *((suite, partial(_answers, engine, codec, asked, config.answers)) for suite, asked in instructions.items()),
    ]
    frames = []
    for suite, step in steps:
        frames += [_items(model, suite, *metric) for metric in step()]
        report(f"{model}: {suite}")
    if questions.safety is not None:
        measured, answered = measure_safety(engine, codec, questions.safety, config.safety, config.seed)
        frames += [_items(model, *each, weights=None) for each in measured]
        report(f"{model}: safety")
        keep(ANSWERS, answers_table(model, answered))
    engine.close()
    return pl.concat(frames)


def _likelihood(
    document_predictions: Sequence[Prediction], codec: TextCodec, questions: Questions, config: LikelihoodConfig
) -> list[Metric]:
    """All that one pass over the documents tells."""
    ids, weights = questions.documents["id"].to_list(), questions.num_bytes
    errors = calibration_errors(document_predictions, weights, config.calibration_bins)
    return [
        *_sliced(bits_per_byte((each.log_probs for each in document_predictions), weights), questions),
        (XZ_BITS_PER_BYTE, ids, questions.xz_bits_per_byte, weights),
        _identifiers(document_predictions, codec.spans_batch(questions.documents["text"].to_list()), questions),
        (CALIBRATION_ERROR, ids, errors, weights),
    ]


def _sliced(bits: NDArray[np.float64], questions: Questions) -> list[Metric]:
    """Bits per byte of all documents, and of every slice of them."""
    ids, weights = questions.documents["id"].to_list(), questions.num_bytes
    return [
        (BITS_PER_BYTE, ids, bits, weights),
        *(
            (f"{name}_{BITS_PER_BYTE}", [ids[row] for row in rows], bits[rows], weights[rows])
            for name, rows in questions.slices.items()
        ),
    ]


def _identifiers(
    document_predictions: Sequence[Prediction], spans: Sequence[NDArray[np.int64]], questions: Questions
) -> Metric:
    """Share of names that are right, of documents that have any; a document weighs as many as it has."""
    rows = [row for row, names in enumerate(questions.identifiers) if len(names)]
    names = [questions.identifiers[row] for row in rows]
    shares = identifier_accuracy([document_predictions[row] for row in rows], [spans[row] for row in rows], names)
    ids = questions.documents["id"].to_list()
    return (IDENTIFIER_ACCURACY, [ids[row] for row in rows], shares, [float(len(each)) for each in names])


def _completion(engine: Engine, codec: TextCodec, questions: Questions, config: CompletionConfig) -> list[Metric]:
    functions = functions_parse(engine, codec, questions.functions, config)
    return [
        *_matches(questions.next_lines, next_lines(engine, codec, questions.next_lines, config)),
        *_matches(questions.blocks, next_blocks(engine, codec, questions.blocks, config), BLOCK),
        (PARSE_SHARE, [place.item for place in questions.functions], map(float, functions), None),
    ]


def _infilling(engine: Engine, codec: TextCodec, suite: str, task: Infilling, config: CompletionConfig) -> list[Metric]:
    written = infilled(engine, codec, suite, task.places, config)
    parsed_items, parses = parse_shares(task, written)
    return [*_matches(task.places, written), (PARSE_SHARE, parsed_items, map(float, parses), None)]


def _repository(engine: Engine, codec: TextCodec, documents: Sequence[RelatedDocument]) -> list[Metric]:
    ids, bits = [each.id for each in documents], context_bits(engine, codec, documents)
    return [
        (WITH_CONTEXT, ids, bits.with_context, bits.num_bytes),
        (WITHOUT_CONTEXT, ids, bits.without_context, bits.num_bytes),
    ]


def _matches(places: Sequence[Place], passages: Sequence[str], prefix: str = "") -> list[Metric]:
    """Whether and how nearly each place got what is missing there; white space at the end does not count."""
    items = [place.item for place in places]
    pairs = [(passage.rstrip(), place.missing.rstrip()) for passage, place in zip(passages, places, strict=True)]
    return [
        (f"{prefix}{EXACT_MATCH}", items, [float(passage == wanted) for passage, wanted in pairs], None),
        (f"{prefix}{EDIT_SIMILARITY}", items, [edit_similarity(passage, wanted) for passage, wanted in pairs], None),
    ]


def _answers(engine: Engine, codec: TextCodec, asked: Sequence[Instruction], config: AnswersConfig) -> list[Metric]:
    items, answered = [f"{each.composition}:{each.name}" for each in asked], answer(engine, codec, asked, config)
    return [(PASSES, items, map(float, answered.passes), None), (ENDS, items, map(float, answered.ends), None)]


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


def baseline_items(model: str, bits: NDArray[np.float64], questions: Questions) -> pl.DataFrame:
    """Items of what is no model of the cycle and still needs a number of bits for each document, under its name."""
    return pl.concat([_items(model, LIKELIHOOD, *metric) for metric in _sliced(bits, questions)])


def summarise(items: pl.DataFrame, config: EvaluateConfig, contaminated: pl.DataFrame | None = None) -> Metrics:
    """model -> suite -> metric -> {value, low, high, n}, in the order of the items.

    Where some of a metric's items are contaminated (columns suite, item), value_clean and n_clean are of the others;
    n_clean is 0 and value_clean not there when none is left.
    """
    metrics: Metrics = {}
    for (model, suite, metric), rows in items.group_by("model", "suite", "metric", maintain_order=True):
        summary: dict[str, float | int] = asdict(estimate(str(metric), rows, config))
        if contaminated is not None:
            clean = rows.join(contaminated, on=["suite", "item"], how="anti", maintain_order="left")
            if len(clean) < len(rows):
                summary["n_clean"] = len(clean)
            if 0 < len(clean) < len(rows):
                summary["value_clean"] = estimate(str(metric), clean, config).value
        metrics.setdefault(str(model), {}).setdefault(str(suite), {})[str(metric)] = summary
    return metrics


def estimate(metric: str, rows: pl.DataFrame, config: EvaluateConfig) -> Estimate:
    """The figure of one metric over its items."""
    values, weights = rows["value"].to_numpy(), rows["weight"].to_numpy()
    # Where all tasks have the same share (a small model passes none), resampling would promise a figure without error.
    varied_shares = metric.startswith(PASS_AT) and values.min() < values.max()
    if metric.endswith(BOOTSTRAPPED) or varied_shares:
        return bootstrap(values, weights, confidence=config.confidence, resamples=config.resamples, seed=config.seed)
    return wilson(float(values.mean()), len(values), config.confidence)


def figures(metrics: Mapping[str, Mapping[str, Mapping[str, float | int]]]) -> dict[str, float]:
    """bits_per_byte, xz_bits_per_byte and parse_share of one model's metrics, for a release gate."""
    wanted = ((LIKELIHOOD, BITS_PER_BYTE), (LIKELIHOOD, XZ_BITS_PER_BYTE), (COMPLETION, PARSE_SHARE))
    return {metric: float(metrics[suite][metric]["value"]) for suite, metric in wanted if metric in metrics[suite]}


def _num_bytes(documents: pl.DataFrame) -> NDArray[np.float64]:
    return documents["text"].str.len_bytes().to_numpy().astype(np.float64)
