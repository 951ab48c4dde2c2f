"""How fast models answer: seconds of a request and tokens a second, alone and with others, through their engines.

Models are measured in turns, a round at a time, each round beginning with another one: what else the machine does
reaches all of them alike, and the rounds of two models pair up. A ratio of two models measured at different hours says
more about the hours.
Every request has a prompt of the same number of tokens and gets the same number of new ones, whatever the model writes.
Times are no part of an artifact's digest: they stand in its manifest under `run`.
Not covered: requests that come and go (components.serving batches them), prompts of different lengths at once.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.core.figures.intervals import bootstrap
from components.evaluation.config import EvaluateConfig, LatencyConfig
from components.evaluation.measures.model_measures import ITEM_SCHEMA, Metrics
from components.inference.engine import Engine, Sampling
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec

LATENCY = "latency"


def latency_items(
    models: Mapping[str, Path], texts: Sequence[str], config: LatencyConfig, engine_name: str | None = None
) -> pl.DataFrame:
    """Items (ITEM_SCHEMA) of each model by its name, one for each round and metric, in turns. For n in `streams`:

    streams_n_first_token_seconds  until n requests at once have their first new token
    streams_n_seconds              until they have all their new tokens
    streams_n_tokens_per_second    new tokens of all n in a second
    """
    engines = {name: open_engine(path, engine_name) for name, path in models.items()}
    prompts = {name: _prompts(engine, TextCodec(models[name]), texts, config) for name, engine in engines.items()}
    names = list(engines)
    rows = []
    for round_number in range(-1, config.rounds):  # the round before the first one warms up
        for streams in config.streams:
            for turn in range(len(names)):
                name = names[(turn + round_number) % len(names)]
                figures = measured(engines[name], prompts[name], streams, round_number, config.new_tokens)
                rows += [
                    (name, LATENCY, f"round_{round_number + 1}", f"streams_{streams}_{metric}", value, 1.0)
                    for metric, value in figures.items()
                    if round_number >= 0
                ]
    for engine in engines.values():
        engine.close()
    order = pl.col("model").replace_strict(names, range(len(names)))
    return pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row").sort(order, maintain_order=True)


def measured(
    engine: Engine, prompts: Sequence[Sequence[int]], streams: int, round_number: int, new_tokens: int
) -> dict[str, float]:
    """Seconds and tokens a second of `streams` requests at once, whose prompts are those of the round."""
    chosen = [prompts[(round_number * streams + index) % len(prompts)] for index in range(streams)]
    started = time.perf_counter()
    engine.generate(chosen, Sampling(max_new_tokens=1), stop_ids=())
    first = time.perf_counter()
    engine.generate(chosen, Sampling(max_new_tokens=new_tokens), stop_ids=())
    seconds = time.perf_counter() - first
    return {
        "first_token_seconds": first - started,
        "seconds": seconds,
        "tokens_per_second": streams * new_tokens / seconds,
    }


def latency_metrics(items: pl.DataFrame, config: EvaluateConfig) -> Metrics:
    """model -> latency -> metric -> {value, low, high, n}: means over rounds."""
    metrics: Metrics = {}
    for (model, metric), rows in items.group_by("model", "metric", maintain_order=True):
        values, ones = rows["value"].to_numpy(), rows["weight"].to_numpy()
        estimate = bootstrap(values, ones, confidence=config.confidence, resamples=config.resamples, seed=config.seed)
        metrics.setdefault(str(model), {}).setdefault(LATENCY, {})[str(metric)] = asdict(estimate)
    return metrics


def record(metrics: Metrics) -> dict[str, Any]:
    """What a manifest keeps under `run`: figures by model, and how many processes wanted a core in the last minute, on
    average, which times are to be read with."""
    return {"load": os.getloadavg()[0], **{model: suites[LATENCY] for model, suites in metrics.items()}}


def _prompts(engine: Engine, codec: TextCodec, texts: Sequence[str], config: LatencyConfig) -> list[list[int]]:
    """Prompts of one length, cut from the texts one after another, as many as a round of the most streams needs."""
    length = max(1, min(config.prompt_tokens, engine.context_tokens // 2))
    tokens = [codec.special.end_of_text]
    for document in codec.encode_batch(list(texts)):
        tokens += document
    count = max(config.streams)
    prompts: list[list[int]] = np.resize(np.array(tokens), (count, length)).tolist()
    return prompts
