"""Which licences a text is, word by word: what is in it beyond their own texts makes it another one.

    words of the text      ... permission is hereby granted free of charge ... for non commercial use only ...
    words of MIT's text    ... permission is hereby granted free of charge ...

A licence is there when the sentences that grant its rights are, whole. Every word must then belong to a licence that
is there, to a known remark, to a line of copyright, or to a name: a few words, none of which grants or takes anything.
Covers: several licences in one text (all of them hold), lines broken and bullets numbered anyhow, names in place,
warranties cut short; any text in time that grows with its length.
Not covered: licences whose texts are not in licence_texts/.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

TEXTS = Path(__file__).with_name("licence_texts")
WORDS = Path(__file__).with_name("licence_words")
MAX_CHARACTERS = 200_000
RUN = 4  # words in a row that belong together: fewer are in any text
MAX_NAME_WORDS = 40

# The grants of each licence by its words; all of one tuple must be there.
_GRANT_MIT = (
    "permission is hereby granted,? free of charge,? to any person obtaining a copy of this software and associated "
    "documentation files the software to deal in the software without restriction including without limitation the "
    "rights to use copy modify merge publish distribute sublicense and or sell copies of the software"
)
# Without a condition; a text that is cut short before it says so has MIT's.
_WITHOUT_NOTICE = f"{_GRANT_MIT} and to permit persons to whom the software is furnished to do so(?! subject to)"
_GRANT_BSD = "redistribution and use in source and binary forms with or without modification are permitted"
_GRANT_ISC = (
    "permission to use copy modify (?:and or |and |or )?distribute this software for any purpose with or without fee "
    "is hereby granted"
)
_NOTICE_ISC = "provided that the above copyright notice and this permission notice appear in all copies"
_ENDORSES = "(?:may|must) not be used to endorse or promote|neither the names? of|nor may the names? of"


def _word_list(name: str) -> frozenset[str]:
    return frozenset((WORDS / f"{name}.txt").read_text(encoding="utf-8").split())


# Words that grant, take, set conditions or command. The first ones are in no line that says who holds a copyright; no
# name of a person, a project or a file between licences has any, but the word licence itself.
COMMANDING = _word_list("commanding")
OPERATIVE = _word_list("operative") | COMMANDING - {"license", "licensed"}


class Recognition(NamedTuple):
    """The licences that are there, and the first words that belong to none of them; empty when all do."""

    licences: tuple[str, ...]
    beyond: str = ""


def recognise(text: str) -> Recognition:
    """The SPDX ids of a licence text, sorted, and what it says beyond them."""
    if len(text) > MAX_CHARACTERS:
        return Recognition((), f"{len(text)} characters")
    text_words = words(text)
    licences = _granted(" ".join(text_words))
    return Recognition(licences, _beyond(text_words, licences) if licences else " ".join(text_words[:12]))


def words(text: str) -> list[str]:
    """Its words in lower case, without lines of copyright and decoration, spellings made one."""
    lines = [line for line in text.lower().splitlines() if not _is_copyright(line)]
    matches = re.findall(r"[^\W_]+", "\n".join(lines))
    return [_SPELLINGS.get(word, word) for word in matches]


_SPELLINGS = {
    "licence": "license",
    "licences": "licenses",
    "licenced": "licensed",
    "https": "http",
    "sublicence": "sublicense",
}
# "Copyright notice that ..." begins a sentence of some licences, and is read as one.
_COPYRIGHT = re.compile(
    r"^\W*(?:(?:portions|all|parts|original|the|this|code|are|is)\s+){0,4}"
    r"(?:copyright\W*(?:\(c\)|[©\ufffd<\[\d]|by\b|c\b|owner|year)|\(c\)|©|\ufffd)"
)
_RESERVED = re.compile(r"^\W*all rights reserved\W*$")


def _is_copyright(line: str) -> bool:
    """Whether a line says who holds the copyright, and nothing else. A longer one is read as any other."""
    if len(line) > 300 or not (_COPYRIGHT.match(line) or _RESERVED.match(line)):
        return False
    return not COMMANDING.intersection(re.findall(r"[^\W_]+", line))


def _granted(said: str) -> tuple[str, ...]:
    """The licences whose grants are in a text of words with single spaces."""

    def count(pattern: str) -> int:
        return len(re.findall(pattern, said))

    there = {name for name, patterns in _GRANTS.items() if all(count(each) for each in patterns)}
    for name, less, grants, conditions in (
        ("BSD-3-Clause", "BSD-2-Clause", count(_GRANT_BSD), count(_ENDORSES)),
        ("ISC", "0BSD", count(_GRANT_ISC), count(_NOTICE_ISC)),
        ("MIT", "MIT-0", count(_GRANT_MIT), count(_GRANT_MIT) - count(_WITHOUT_NOTICE)),
    ):
        there |= {name} if grants and conditions else set()
        there |= {less} if grants > conditions else set()
    if "Python-2.0" in there:  # which has these texts in it
        there -= {"PSF-2.0", "CNRI-Python", "MIT-CMU"}
    return tuple(sorted(there))


_GRANTS: dict[str, tuple[str, ...]] = {
    "Apache-2.0": (r"apache (?:software )?license,? (?:version|v)? ?2(?: 0)?\b",),
    "BSL-1.0": (
        "permission is hereby granted free of charge to any person or organization obtaining a copy of the software "
        "and accompanying documentation covered by this license the software to use reproduce display distribute "
        "execute and transmit the software and to prepare derivative works of the software",
    ),
    "CC0-1.0": ("(?:cc0|creative commons zero v?) ?1 0 universal",),
    "CNRI-Python": ("cnri hereby grants licensee a non ?exclusive royalty free world wide license",),
    "MIT-CMU": (
        "permission to use copy modify and distribute this software and its (?:associated )?documentation for any "
        "purpose and without fee is hereby granted",
        "not be used in advertising or publicity pertaining to distribution of the software",
    ),
    "PSF-2.0": ("psf hereby grants licensee a nonexclusive royalty free world wide license",),
    "Python-2.0": (
        "psf hereby grants licensee a nonexclusive royalty free world wide license",
        "beopen hereby grants licensee a non exclusive royalty free world wide license",
    ),
    "Unlicense": (
        "this is free and unencumbered software released into the public domain",
        "anyone is free to copy modify publish use compile sell or distribute this software",
    ),
    "Zlib": (
        "permission is granted to anyone to use this software for any purpose including commercial applications and to "
        "alter it and redistribute it freely subject to the following restrictions",
    ),
}


@cache
def _runs(path: Path) -> frozenset[tuple[str, ...]]:
    """Every run of words of one text."""
    text_words = words(path.read_text(encoding="utf-8"))
    return frozenset(zip(*(text_words[start:] for start in range(RUN)), strict=False))


def _beyond(text_words: Sequence[str], licences: Sequence[str]) -> str:
    """The first words that no licence which is there accounts for; empty when there are none."""
    # Remarks beside licences change nothing: what the text is called, which of its files are whose.
    paths = [*(TEXTS / f"{name}.txt" for name in licences), WORDS / "remarks.txt"]
    known: frozenset[tuple[str, ...]] = frozenset().union(*map(_runs, paths))
    belongs = bytearray(len(text_words))
    for start in range(len(text_words) - RUN + 1):
        if tuple(text_words[start : start + RUN]) in known:
            belongs[start : start + RUN] = b"\1" * RUN
    for gap in re.finditer(rb"\0+", bytes(belongs)):
        if not _is_name(text_words[gap.start() : gap.end()]):
            return " ".join(text_words[gap.start() : gap.end()][:40])
    return ""


def _is_name(gap: Sequence[str]) -> bool:
    """Whether words between those of licences name somebody or something, or number a list."""
    return len(gap) <= MAX_NAME_WORDS and not OPERATIVE.intersection(gap)
