"""datatrove's four stages on local files, one after the other in this process."""

import json
import time
from pathlib import Path

import xxhash
from datatrove.executor.local import LocalPipelineExecutor  # type: ignore[import-not-found]
from datatrove.pipeline.dedup import (  # type: ignore[import-not-found]
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig  # type: ignore[import-not-found]
from datatrove.pipeline.readers import ParquetReader  # type: ignore[import-not-found]
from datatrove.pipeline.writers.jsonl import JsonlWriter  # type: ignore[import-not-found]
from datatrove.utils.word_tokenizers import load_word_tokenizer  # type: ignore[import-not-found]

from benchmarks.data.near_duplicates import BANDS, INPUT, ROWS_PER_BAND, SHINGLE_TOKENS
from benchmarks.harness import Outcome


def _hash(text: str) -> int:
    """datatrove's own hash; it hands xxhash a str, which version 4 of that refuses."""
    return int(xxhash.xxh64_intdigest(text.encode()))


def run(folder: Path) -> Outcome:
    """Documents a second, and the ids that stay."""
    config = MinhashConfig(n_grams=SHINGLE_TOKENS, num_buckets=BANDS, hashes_per_bucket=ROWS_PER_BAND)
    work = folder / f"datatrove-{time.time_ns()}"
    work.mkdir()
    load_word_tokenizer("eng").word_tokenize("its imports")
    reader = ParquetReader(str(folder), glob_pattern=INPUT, text_key="text", id_key="id")
    signature = MinhashDedupSignature(str(work / "signatures"), config=config)
    signature._hash_func = _hash
    places = {name: str(work / name) for name in ("signatures", "buckets", "remove", "kept")}
    stages = [
        (1, [reader, signature]),
        (BANDS, [MinhashDedupBuckets(places["signatures"], places["buckets"], config=config)]),
        (1, [MinhashDedupCluster(places["buckets"], places["remove"], config=config)]),
        (1, [reader, MinhashDedupFilter(places["remove"]), JsonlWriter(places["kept"], compression=None)]),
    ]
    started = time.perf_counter()
    for number, (tasks, steps) in enumerate(stages):
        LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(work / f"log{number}")).run()
    seconds = time.perf_counter() - started
    lines = [line for path in Path(places["kept"]).glob("*.jsonl") for line in path.read_text().splitlines()]
    kept = [json.loads(line)["id"] for line in lines]
    documents = json.loads((work / "log0" / "stats.json").read_text())[0]["stats"]["documents"]["total"]
    return Outcome(figure=documents / seconds, answer={"kept": kept})
