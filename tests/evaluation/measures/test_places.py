"""Blocks, runs of lines and spans that are cut out of documents, and whether what is filled in parses."""

import inspect
import json.decoder
import textwrap

import pytest

from components.evaluation.config import CompletionConfig
from components.evaluation.measures.infilling import MAX_PARSED_CHARACTERS, infilling_tasks, parse_shares, parsing
from components.evaluation.measures.places import (
    MAX_BLOCK_CHARACTERS,
    MAX_BLOCK_LINES,
    Place,
    block_places,
    depth,
    indented,
    multi_line_places,
    span_places,
)

SOURCE = inspect.getsource(json.decoder)
GO = """package main

func add(a int, b int) int {
	sum := a + b
	if sum > 10 {
		sum = 10
		b = 0

		a = b
	}
	return sum
}
"""
# Ends a string and begins one, wherever it stands.
BREAKS_ALL = '"""\n\'\'\'\n"""\n(['
TEXTS = [SOURCE, inspect.getsource(textwrap), GO]
IDS = ["a", "b", "c"]
LANGUAGES = {"a": "python", "b": "python", "c": "go"}


def document_of(place: Place) -> tuple[str, str]:
    """Text of the document that an item names, and where in it."""
    document, where = place.item.rsplit(":", 1)
    return TEXTS[IDS.index(document)], where


@pytest.mark.parametrize("draw", [block_places, multi_line_places, span_places])
def test_what_is_cut_out_fits_back_in(draw) -> None:
    places = draw(IDS, TEXTS, 20, 3)
    assert 15 < len({place.item for place in places}) == len(places) <= 20
    assert places == draw(IDS, TEXTS, 20, 3) != draw(IDS, TEXTS, 20, 4)
    for place in places:
        text, where = document_of(place)
        assert place.text == text == place.filled(place.missing)
        assert place.prefix + place.missing + place.suffix in text
        assert 0 < len(place.missing) <= MAX_BLOCK_CHARACTERS and place.missing.strip()
        first, last = map(int, where.split("-"))
        if draw is span_places:
            assert text[first:last] == place.missing
        else:
            assert 1 < len(text.split("\n")[first - 1 : last]) <= MAX_BLOCK_LINES
            assert "\n".join(text.split("\n")[first - 1 : last]) == place.missing


def test_a_block_is_all_that_is_deeper_than_the_line_before() -> None:
    """The whole block, in braces too, and what follows it in the document ends what a model writes."""
    blocks = block_places(["c"], [GO], 9, 0)
    assert {place.item: place.missing for place in blocks} == {"c:6-9": "\t\tsum = 10\n\t\tb = 0\n\n\t\ta = b"}
    for place in block_places(IDS, TEXTS, 1000, 0):
        margin = depth(place.prefix.split("\n")[-2])
        assert indented(place.missing + place.suffix, margin).rstrip() == place.missing.rstrip()
        assert all(depth(line) > margin for line in place.missing.split("\n") if line.strip())


def test_documents_parse_with_what_was_there_and_not_with_anything() -> None:
    config = CompletionConfig(infilled_lines=20, infilled_spans=20)
    for task in infilling_tasks(IDS, TEXTS, LANGUAGES, config, 0).values():
        items, parses = parse_shares(task, [place.missing for place in task.places])
        assert items == [place.item for place in task.places] and all(parses)
        _, parses = parse_shares(task, [BREAKS_ALL] * len(task.places))
        assert not any(parses)


def test_only_what_parses_as_it_is_is_looked_at() -> None:
    """A broken program, one without a grammar and a long one are asked for, and not parsed."""
    texts = ["def broken(:\n    value = 1\n    other = 2\n" * 3, "some words here\nand more words\n" * 5]
    texts += ["value = 1\nother = 2\n" * (MAX_PARSED_CHARACTERS // 16)]
    languages = {"a": "python", "b": None, "c": "python"}
    for task in infilling_tasks(IDS, texts, languages, CompletionConfig(infilled_spans=10), 0).values():
        assert len(task.places) > 5
        assert parse_shares(task, [place.missing for place in task.places]) == ([], [])


def test_every_language_is_judged_by_its_own_grammar() -> None:
    texts = ["x = 1\n", "x = = 1\n", GO, GO + "}", "print 'old'\n", "echo $((1 + 2))\n", "if then fi fi\n"]
    languages = ["python", "python", "go", "go", "python", "shell", "shell"]
    assert parsing(texts, languages) == [True, False, True, False, False, True, False]
    assert parsing(["any", "any"], [None, "markdown"]) == [None, None]
