"""What a model writes between the code before and after, greedily: one line, several lines, any span of characters.

The tasks of Bavarian 2022 (arXiv:2207.14255, section 3), on held-out documents. A line ends with the line; several
lines and spans end where the model ends them with <|endoftext|>, so one that does not know when to stop is not right.
Covers: exact match and edit similarity; whether the document parses with what was written, in every language with a
grammar (components.data.cleaning.syntax), of documents that parse as they are.
Not covered: passages longer than MAX_BLOCK_CHARACTERS; parsing of documents longer than MAX_PARSED_CHARACTERS.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from components.data.cleaning.syntax import syntax
from components.evaluation.config import CompletionConfig
from components.evaluation.measures.completion import room, within, written_lines
from components.evaluation.measures.places import Place, line_places, multi_line_places, span_places
from components.inference.engine import Engine, Sampling
from components.inference.infilling_prompts import completion_stop_ids, fim_prompt
from components.tokens.encoding.codec import TextCodec

SINGLE_LINE = "infilling"
MULTI_LINE = "infilling_multi_line"
RANDOM_SPAN = "infilling_random_span"
# Parsing is most of what a long document costs: 12 MB/s.
MAX_PARSED_CHARACTERS = 65_536

Draw = Callable[[Sequence[str], Sequence[str], int, int], list[Place]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Infilling:
    """Places of one task, and the language of each document that parses as it is (None for the others)."""

    places: tuple[Place, ...]
    languages: tuple[str | None, ...]


def infilling_tasks(
    ids: Sequence[str], texts: Sequence[str], languages: Mapping[str, str | None], config: CompletionConfig, seed: int
) -> dict[str, Infilling]:
    """The three tasks by suite. `languages` by text's id."""
    tasks: tuple[tuple[str, Draw, int], ...] = (
        (SINGLE_LINE, line_places, config.infilled_lines),
        (MULTI_LINE, multi_line_places, config.infilled_spans),
        (RANDOM_SPAN, span_places, config.infilled_spans),
    )
    by_suite = {}
    for number, (suite, draw, limit) in enumerate(tasks, start=1):
        places = draw(ids, texts, limit, seed + number)
        named = [
            None if len(place.text) > MAX_PARSED_CHARACTERS else languages[place.item.rpartition(":")[0]]
            for place in places
        ]
        whole = parsing([place.text for place in places], named)
        parsed = tuple(name if parses else None for name, parses in zip(named, whole, strict=True))
        by_suite[suite] = Infilling(places=tuple(places), languages=parsed)
    return by_suite


def parsing(texts: Sequence[str], languages: Sequence[str | None]) -> list[bool | None]:
    """Whether each text is a program of its language; None where there is no grammar for it."""
    distinct = list(dict.fromkeys(zip(texts, languages, strict=True)))
    rows = syntax([text for text, _ in distinct], [name for _, name in distinct], [None] * len(distinct))
    verdicts: dict[tuple[str, str | None], bool | None] = {}
    for each, error, share in zip(distinct, rows["parser_error"], rows["error_share"], strict=True):
        verdicts[each] = error is None if each[1] == "python" else None if share is None else share == 0
    return [verdicts[each] for each in zip(texts, languages, strict=True)]


def infilled(
    engine: Engine, codec: TextCodec, suite: str, places: Sequence[Place], config: CompletionConfig
) -> list[str]:
    """What the model writes between each prefix and suffix; white space at the end of a single line is left out."""
    single = suite == SINGLE_LINE
    max_new_tokens = config.max_line_tokens if single else config.max_block_tokens
    prompts = [fim_prompt(codec, place.prefix, place.suffix, room(engine, max_new_tokens)) for place in places]
    if single:
        return written_lines(engine, codec, prompts, max_new_tokens)
    sampling = Sampling(max_new_tokens=within(engine, max_new_tokens))
    completions = engine.generate(prompts, sampling, stop_ids=completion_stop_ids(codec))
    return [codec.decode(completion.tokens) for (completion,) in completions]


def parse_shares(task: Infilling, written: Sequence[str]) -> tuple[list[str], list[bool]]:
    """Items whose documents parse as they are, and whether they do with what was written."""
    rows = [
        (place.item, place.filled(passage), name)
        for place, passage, name in zip(task.places, written, task.languages, strict=True)
        if name is not None
    ]
    verdicts = parsing([text for _, text, _ in rows], [name for _, _, name in rows])
    return [item for item, _, _ in rows], [verdict is True for verdict in verdicts]
