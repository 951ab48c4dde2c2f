"""The straightforward script: pyarrow, encode_batch_fast on all cores, numpy; a batch of documents at a time."""

import hashlib
import json
import os
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"  # before the import that reads it

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from benchmarks.harness import Outcome

COLUMNS = ["id", "text", "path", "language", "bytes", "cluster"]
BATCH_DOCUMENTS = 1024
END_OF_TEXT_ID = 0


def run(folder: Path) -> Outcome:
    """MB of text per second."""
    out = folder / "peer"
    out.mkdir(exist_ok=True)
    held_out = set(json.loads((folder / "held_out.json").read_text(encoding="utf-8")))
    started, cpu_started = time.perf_counter(), time.process_time()
    num_bytes = write(folder, out, held_out)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    digests: dict[str, str] = {}
    for split in ("train", "validation"):
        documents = pl.read_parquet(out / f"{split}.documents.parquet", columns=["id", "tokens"])
        digests |= {
            f"{split}.tokens": hashlib.sha256((out / f"{split}.bin").read_bytes()).hexdigest(),
            f"{split}.offsets": hashlib.sha256(np.load(out / f"{split}.offsets.npy").tobytes()).hexdigest(),
            f"{split}.documents": hashlib.sha256(documents.write_json().encode()).hexdigest(),
        }
    return Outcome(figure=num_bytes / 1e6 / seconds, answer={"digests": digests, "cpu_seconds": cpu_seconds})


def write(folder: Path, out: Path, held_out: set[str]) -> int:
    """Encode everything; returns the bytes of text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    files = {split: (out / f"{split}.bin").open("wb") for split in ("train", "validation")}
    lengths: dict[str, list[int]] = {split: [] for split in files}
    tables: dict[str, list[pa.Table]] = {split: [] for split in files}
    num_bytes = 0
    for batch in pq.ParquetFile(folder / "clean" / "part-00000.parquet").iter_batches(BATCH_DOCUMENTS, columns=COLUMNS):
        encodings = tokenizer.encode_batch_fast(batch["text"].to_pylist(), add_special_tokens=False)
        is_held_out = np.array([identity in held_out for identity in batch["id"].to_pylist()])
        counts = np.array([len(encoding.ids) + 1 for encoding in encodings])
        for encoding, held in zip(encodings, is_held_out, strict=True):
            ids = np.array([*encoding.ids, END_OF_TEXT_ID], dtype=np.uint16)
            files["validation" if held else "train"].write(ids.tobytes())
        described = pa.table(batch).drop_columns(["text"]).append_column("tokens", pa.array(counts))
        for split, mask in (("train", ~is_held_out), ("validation", is_held_out)):
            lengths[split] += counts[mask].tolist()
            tables[split].append(described.filter(pa.array(mask)))
        num_bytes += sum(batch["bytes"].to_pylist())
    for split, file in files.items():
        file.close()
        np.save(out / f"{split}.offsets.npy", np.cumsum([0, *lengths[split]], dtype=np.int64))
        pq.write_table(pa.concat_tables(tables[split]), out / f"{split}.documents.parquet", compression="zstd")
    return num_bytes
