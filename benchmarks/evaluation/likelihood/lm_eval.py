"""lm-eval's HFLM in float32, as its tasks call it, at each of several batch sizes: the best one counts."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance  # type: ignore[import-not-found]
from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

from benchmarks.evaluation.likelihood import ITEMS
from benchmarks.harness import Outcome

BATCH_SIZES = (1, 8, 32)


def run(folder: Path) -> Outcome:
    """Tokens read a second, from texts to scores, once warm."""
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    items = json.loads((folder / ITEMS).read_text())
    pairs, texts = (
        [Instance(request_type=kind, doc={}, arguments=arguments, idx=0) for arguments in found]
        for kind, found in (
            ("loglikelihood", [tuple(pair) for pair in items["pairs"]]),
            ("loglikelihood_rolling", [(text,) for text in items["texts"]]),
        )
    )
    model: Any = HFLM(pretrained=str(folder / "model"), device="cpu", dtype="float32", batch_size=1)
    model.loglikelihood(pairs[:2], disable_tqdm=True)
    figures: dict[int, float] = {}
    for size in BATCH_SIZES:
        model.batch_size_per_gpu = size
        started = time.perf_counter()
        scores = [each for each, _ in model.loglikelihood(pairs, disable_tqdm=True)]
        scores += model.loglikelihood_rolling(texts, disable_tqdm=True)
        figures[size] = items["tokens"] / (time.perf_counter() - started)
    best = max(figures, key=lambda size: figures[size])
    return Outcome(
        figure=figures[best],
        answer={"scores": scores, "batch_size": best, "figures": figures, "threads": threads},
    )
