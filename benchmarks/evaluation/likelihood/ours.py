"""The engine that the platform chooses for the model."""

import json
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.evaluation.likelihood import ITEMS
from benchmarks.harness import Outcome
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec


def run(folder: Path) -> Outcome:
    """Tokens read a second, from texts to scores, once warm."""
    items = json.loads((folder / ITEMS).read_text())
    threads = len(os.sched_getaffinity(0))
    engine = open_engine(folder / "model", num_threads=threads, cache=folder / "engines")
    codec = TextCodec(folder / "model")
    engine.score([codec.encode(items["texts"][0])])
    started = time.perf_counter()
    contexts = codec.encode_batch([context for context, _ in items["pairs"]])
    whole = codec.encode_batch(["".join(pair) for pair in items["pairs"]])
    texts = [[codec.special.end_of_text, *each] for each in codec.encode_batch(items["texts"])]
    firsts = [*map(len, contexts), *(1 for _ in texts)]
    found = engine.score([*whole, *texts])
    scores = [float(each[first - 1 :].sum(dtype=np.float64)) for each, first in zip(found, firsts, strict=True)]
    seconds = time.perf_counter() - started
    return Outcome(
        figure=items["tokens"] / seconds, answer={"scores": scores, "engine": engine.name, "threads": threads}
    )
