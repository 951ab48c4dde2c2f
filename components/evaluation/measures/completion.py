"""What a model writes at places in held-out documents, greedily: the next line, the next block, a function's body.

Covers: exact match and edit similarity of lines and blocks, indentation included; whether a function with the written
body parses.  Not covered: whether the body does what the docstring says (components.evaluation.measures.functional).
"""

from collections.abc import Sequence

import numpy as np

from components.evaluation.config import CompletionConfig
from components.evaluation.measures.places import FunctionPlace, Place, depth, has_body, indented
from components.inference.engine import Completion, Engine, Sampling
from components.inference.infilling_prompts import completion_prompt, completion_stop_ids
from components.tokens.encoding.codec import TextCodec


def edit_similarity(passage: str, wanted: str) -> float:
    """1 - Levenshtein distance / length of the longer text; 1 for two empty texts (Lu 2021, CodeXGLUE, section 3.3).

    A row of the table at a time: what insertions make of a row is a running minimum.
    """
    if passage == wanted:
        return 1.0
    codes = np.array([ord(character) for character in wanted], dtype=np.int64)
    columns = np.arange(len(wanted) + 1)
    row = columns.copy()
    for number, character in enumerate(passage, start=1):
        reached = np.minimum(row[1:] + 1, row[:-1] + (codes != ord(character)))
        row = np.minimum.accumulate(np.concatenate([[number], reached]) - columns) + columns
    return 1 - float(row[-1]) / max(len(passage), len(wanted))


def next_lines(engine: Engine, codec: TextCodec, places: Sequence[Place], config: CompletionConfig) -> list[str]:
    """The line that the model writes after each prefix."""
    prompts = [completion_prompt(codec, place.prefix, room(engine, config.max_line_tokens)) for place in places]
    return written_lines(engine, codec, prompts, config.max_line_tokens)


def next_blocks(engine: Engine, codec: TextCodec, places: Sequence[Place], config: CompletionConfig) -> list[str]:
    """The lines that the model writes after each prefix, up to one that is not deeper than the prefix's last."""
    prompts = [completion_prompt(codec, place.prefix, room(engine, config.max_block_tokens)) for place in places]
    sampling = Sampling(max_new_tokens=within(engine, config.max_block_tokens))
    completions = engine.generate(prompts, sampling, stop_ids=completion_stop_ids(codec))
    return [
        body_of(codec, completion, margin=depth(place.prefix.split("\n")[-2])).rstrip()
        for place, (completion,) in zip(places, completions, strict=True)
    ]


def functions_parse(
    engine: Engine, codec: TextCodec, places: Sequence[FunctionPlace], config: CompletionConfig
) -> list[bool]:
    """Whether each function parses with the body that the model writes and has a statement of its own.

    A body ends at the first line at the margin; where the tokens end before that, its last line is unfinished and is
    left out.
    """
    prompts = [completion_prompt(codec, place.prefix, room(engine, config.max_function_tokens)) for place in places]
    sampling = Sampling(max_new_tokens=within(engine, config.max_function_tokens))
    completions = engine.generate(prompts, sampling, stop_ids=completion_stop_ids(codec))
    return [
        has_body(place.head + body_of(codec, completion))
        for place, (completion,) in zip(places, completions, strict=True)
    ]


def body_of(codec: TextCodec, completion: Completion, margin: int = 0) -> str:
    """The lines of a completion that belong to the block in which it begins, without an unfinished last one."""
    text = codec.decode(completion.tokens)
    body = indented(text, margin)
    if body == text and completion.finish_reason == "length":
        body = body[: body.rfind("\n") + 1]
    return body


def line_end_ids(codec: TextCodec) -> list[int]:
    """Every token that holds the end of a line, and <|endoftext|>."""
    ids = [token for token in range(codec.vocabulary_size) if "\n" in codec.decode([token])]
    return [*completion_stop_ids(codec), *ids]


def written_lines(engine: Engine, codec: TextCodec, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    """What the model writes after each prompt up to the end of the line, white space at its end left out."""
    sampling = Sampling(max_new_tokens=within(engine, max_new_tokens))
    completions = engine.generate(prompts, sampling, stop_ids=line_end_ids(codec))
    return [codec.decode(completion.tokens).rstrip() for (completion,) in completions]


def room(engine: Engine, new_tokens: int) -> int:
    """Tokens that a prompt may have when so many follow; at least half the context."""
    return engine.context_tokens - within(engine, new_tokens)


def within(engine: Engine, new_tokens: int) -> int:
    """So many new tokens, at most half the context: a model whose positions are learned has none for more."""
    return min(new_tokens, engine.context_tokens // 2)
