"""The input of both sides: 48 MB of Python as clean documents, a vocabulary of the default size, the held-out ids."""

import json
from pathlib import Path

from benchmarks.tokens.corpus import documents, write_clean
from components.tokens.config import TokenizeConfig, VocabularyConfig
from components.tokens.shards.split import is_validation
from components.tokens.vocabulary import learn, sample, write

CORPUS_BYTES = 48_000_000
SAMPLE_BYTES = 8_000_000


def prepare(folder: Path, corpus_bytes: int = CORPUS_BYTES) -> None:
    """Write clean/, tokenizer/ and held_out.json."""
    frame = documents(corpus_bytes, {".py": "python"})
    write_clean(frame, folder / "clean")
    chosen = frame.filter(sample(frame, min(SAMPLE_BYTES, corpus_bytes), seed=0))
    (folder / "tokenizer").mkdir()
    write(learn(chosen["text"].to_list(), VocabularyConfig().vocabulary_size), folder / "tokenizer")
    config = TokenizeConfig()
    held_out = frame.filter(is_validation(frame["cluster"], config.validation_fraction, config.seed))["id"]
    (folder / "held_out.json").write_text(json.dumps(held_out.to_list()), encoding="utf-8")
