"""The stage's own path, from clean Parquet to all token files; without manifest and contract, which the peer lacks."""

import hashlib
import os
import time
from pathlib import Path

import polars as pl

from benchmarks.harness import Outcome
from components.core.events import Events
from components.tokens.config import TokenizeConfig
from components.tokens.shards.token_store import SPLITS, TokenStore, documents_path
from components.tokens.tokenize import write_all


def run(folder: Path) -> Outcome:
    """MB of text per second."""
    os.environ["OVERNIGHT_STATE"] = str(folder / "state")
    out = folder / "ours"
    out.mkdir(exist_ok=True)
    events = Events("tokenize")
    started, cpu_started = time.perf_counter(), time.process_time()
    output, decided = write_all(
        TokenizeConfig(repository_share=0.0), folder / "clean", folder / "tokenizer", out, events
    )
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    counts = output.statistics()
    megabytes = (counts["train_bytes"] + counts["validation_bytes"]) / 1e6
    digests = {}
    for split in SPLITS:
        store = TokenStore(out, split)
        described = pl.read_parquet(documents_path(out, split), columns=["id", "tokens"])
        for name, content in (
            ("tokens", store.read(0, store.num_tokens).tobytes()),
            ("offsets", store.offsets.tobytes()),
            ("documents", described.write_json().encode()),
        ):
            digests[f"{split}.{name}"] = hashlib.sha256(content).hexdigest()
    return Outcome(
        figure=megabytes / seconds,
        answer={
            "digests": digests,
            "tokens": counts["train_tokens"] + counts["validation_tokens"],
            "megabytes": round(megabytes, 1),
            "engine": decided["engine"],
            "cpu_seconds": cpu_seconds,
        },
    )
