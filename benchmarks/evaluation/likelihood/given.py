"""The input of both sides: the model, and items as texts."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evaluation import given
from benchmarks.evaluation.likelihood import ITEMS
from components.tokens.encoding.codec import TextCodec

CONTINUATIONS, TEXTS = 240, 80


def prepare(folder: Path) -> None:
    """Write model/ and items.json: pairs of context and continuation, and texts. They are cut between tokens, and
    kept where the cut survives tokenizing."""
    given.prepare(folder)
    documents = [each for each in given.held_out(folder) if len(each) >= 256]
    codec = TextCodec(folder / "tokenizer")
    generator = np.random.default_rng(0)

    def drawn(length: int) -> list[int]:
        document = documents[int(generator.integers(len(documents)))]
        start = int(generator.integers(0, len(document) - length))
        return document[start : start + length]

    pairs: list[tuple[str, str]] = []
    while len(pairs) < CONTINUATIONS:
        context, continuation = int(generator.integers(20, 160)), int(generator.integers(4, 48))
        tokens = drawn(context + continuation)
        split = codec.decode_batch([np.array(tokens[:context]), np.array(tokens[context:])])
        kept = codec.encode("".join(split)) == tokens and codec.encode(split[0]) == tokens[:context]
        if kept and split[0] == split[0].rstrip():  # lm-eval moves white space to the continuation
            pairs.append((split[0], split[1]))
    texts = codec.decode_batch([np.array(drawn(int(generator.integers(32, 240)))) for _ in range(TEXTS)])
    tokens_scored = sum(len(codec.encode(one + two)) for one, two in pairs) + sum(map(len, codec.encode_batch(texts)))
    (folder / ITEMS).write_text(json.dumps({"pairs": pairs, "texts": texts, "tokens": tokens_scored}))
