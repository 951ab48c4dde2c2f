"""What every side does with its tokenizer, and how a peer learns one."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.harness import Outcome

Learn = Callable[[list[str], int], Tokenizer]


def measure(folder: Path, learn: Learn) -> Outcome:
    """Learn from the sample; bytes per token of the held-out documents together, and by language."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    texts = pl.read_parquet(folder / "sample.parquet")["text"].to_list()
    started = time.process_time()
    tokenizer = learn(texts, settings["vocabulary_size"])
    seconds = time.process_time() - started
    tokenizer.encode_special_tokens = True
    held_out = pl.read_parquet(folder / "held_out.parquet")
    encodings = tokenizer.encode_batch(held_out["text"].to_list(), add_special_tokens=False)
    decoded = tokenizer.decode_batch([each.ids for each in encodings], skip_special_tokens=False)
    counted = held_out.with_columns(tokens=pl.Series([len(each.ids) for each in encodings]))
    sums = counted.group_by("language").agg(pl.sum("bytes", "tokens")).sort("language").rows()
    answer: dict[str, Any] = {
        "bytes": int(held_out["bytes"].sum()),
        "vocabulary_size": tokenizer.get_vocab_size(),
        "lossless": decoded == held_out["text"].to_list(),
        "bytes_per_token": {name: round(num_bytes / num_tokens, 3) for name, num_bytes, num_tokens in sums},
        "cpu_seconds": round(seconds, 1),
    }
    return Outcome(figure=sum(row[1] for row in sums) / sum(row[2] for row in sums), answer=answer)


def measure_pattern(folder: Path, pattern: str) -> Outcome:
    """`measure` with a byte-level vocabulary over the pieces of a pattern, special tokens first."""
    special = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["special_tokens"]

    def learn(texts: list[str], vocabulary_size: int) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer, length=len(texts))
        return tokenizer

    return measure(folder, learn)
