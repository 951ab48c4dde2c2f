"""Licences as SPDX ids: from whatever a source declares, and whether an allow list lets them in.

`declare` reads what a Python distribution says about itself; `judge` turns any declaration into an SPDX expression that
the allow list lets in, or into a reason.
Covers: SPDX expressions, names as people write them, a field that holds a whole licence text, licence files, trove
classifiers (PEP 639 and before). Unknown stays unknown: nothing is guessed from a name that two licences share.
Not covered: licences of single files that differ from their distribution's.
"""

import re
from collections.abc import Callable, Collection, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

PERMISSIVE = (
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "PSF-2.0",
    "Python-2.0",
    "Unlicense",
    "Zlib",
)
OWN = "LicenseRef-Own"

# Names as people write them, folded by _fold(); a name that fits several licences is in AMBIGUOUS instead.
_NAMES = {
    **{name.lower(): name for name in PERMISSIVE},
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "mit license": "MIT",
    "mit licence": "MIT",
    "the mit license": "MIT",
    "isc license": "ISC",
    "isc license iscl": "ISC",
    "new bsd": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "modified bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "simplified bsd license": "BSD-2-Clause",
    "2-clause bsd license": "BSD-2-Clause",
    "python software foundation license": "PSF-2.0",
    "the unlicense unlicense": "Unlicense",
    "zero-clause bsd 0bsd": "0BSD",
    "cc0 1.0 universal cc0 1.0 public domain dedication": "CC0-1.0",
}
# Ids that are known and not permissive, or not for code: a list may name them all the same.
_SPDX = frozenset({*PERMISSIVE, "BlueOak-1.0.0", "CC-BY-4.0", "HPND", "NCSA", "OFL-1.1", "PostgreSQL", "WTFPL", "X11"})
_NOTHING = frozenset({"", "UNKNOWN", "NONE", "NULL", "N/A", "NOASSERTION", "NO LICENSE", "OTHER", "[]"})
# One trove classifier for every version; each version that Python packages use is permissive, so its licence file
# decides which id it is, and without one the version in use since 2004.
_AMBIGUOUS = {
    "apache software license": "Apache-2.0",
    "apache": "Apache-2.0",
    "apache license": "Apache-2.0",
    "bsd": None,
    "bsd license": None,
}
_COPYLEFT = re.compile(
    r"\b[AL]?GPL|GNU (?:Affero |Lesser |Library )?General Public|\bMPL\b|Mozilla Public|\bEPL|Eclipse Public|\bEUPL"
    r"|\bCDDL|\bSSPL|CC-BY-(?:NC|SA|ND)|\bOSL\b|Commons Clause|Business Source|\bBUSL",
    re.IGNORECASE,
)
# What takes back the permission that the same text gives.
_SOURCE_AVAILABLE = re.compile(r"Commons Clause|Business Source License|Server Side Public License", re.IGNORECASE)
# Sentences that a licence text cannot be without, each with its id; the first that fits decides.
_TEXTS: tuple[tuple[str, str], ...] = (
    ("Apache-2.0", r"Apache License,? Version 2\.0"),
    ("BSD-3-Clause", r"Redistribution and use in source and binary forms.{0,2500}Neither the name"),
    ("BSD-2-Clause", r"Redistribution and use in source and binary forms"),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy"),
    ("ISC", r"Permission to use, copy, modify, and(?:/or)? distribute this software for any purpose with or without"),
    ("PSF-2.0", r"PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2"),
    ("Unlicense", r"This is free and unencumbered software released into the public domain"),
)
# A text names its own licence in its opening; what follows are terms of bundled binaries, which no .py file is.
_OPENING_CHARACTERS = 4000
_EXCEPTIONS = frozenset({"LLVM-exception", "GCC-exception-3.1", "Classpath-exception-2.0"})


class Verdict(NamedTuple):
    """A licence that is let in, or the reason (and its detail) that it is not: `reason` is empty when it is."""

    licence: str | None
    reason: str = ""
    detail: str = ""


def _fold(name: str) -> str:
    """A licence's name in lower case without punctuation that people vary."""
    return " ".join(re.sub(r"[(),\"]", " ", name.replace("::", " ")).lower().split())


@cache
def refused(expression: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The ids that keep a licence expression out of an allow list, sorted; empty when it is let in.

    `A AND B` needs both, `A OR B` needs one, `A WITH exception` needs A (an exception only adds permissions).
    Raises ValueError for text that is no SPDX expression.
    """
    tokens = re.findall(r"\(|\)|[A-Za-z0-9.+:-]+", expression)
    if not tokens or "".join(tokens) != re.sub(r"\s+", "", expression):
        raise ValueError(f"{expression!r} is not an SPDX expression")
    found, rest = _either(tokens, allowed)
    if rest:
        raise ValueError(f"{expression!r} is not an SPDX expression: unexpected {rest[0]!r}")
    return tuple(sorted(found))


def _either(tokens: list[str], allowed: Collection[str]) -> tuple[set[str], list[str]]:
    found, rest = _both(tokens, allowed)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:], allowed)
        found = found | other if found and other else set()
    return found, rest


def _both(tokens: list[str], allowed: Collection[str]) -> tuple[set[str], list[str]]:
    found, rest = _one(tokens, allowed)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:], allowed)
        found |= other
    return found, rest


def _one(tokens: list[str], allowed: Collection[str]) -> tuple[set[str], list[str]]:
    if not tokens or tokens[0] == ")" or tokens[0].upper() in ("AND", "OR", "WITH"):
        raise ValueError("an SPDX expression ends too early or lacks an id")
    if tokens[0] == "(":
        found, rest = _either(tokens[1:], allowed)
        if not rest or rest[0] != ")":
            raise ValueError("an SPDX expression lacks a closing bracket")
        return found, rest[1:]
    found, rest = set() if tokens[0] in allowed else {tokens[0]}, tokens[1:]
    if rest and rest[0].upper() == "WITH":
        if len(rest) < 2 or rest[1] not in _EXCEPTIONS:
            raise ValueError(f"an SPDX expression names no known exception after WITH in {tokens}")
        rest = rest[2:]
    return found, rest


def from_text(text: str) -> str | None:
    """The SPDX id of a licence text by the sentences it cannot be without; None when none fits."""
    opening = text[:_OPENING_CHARACTERS]
    for spdx, pattern in _TEXTS:
        words = pattern.replace(" ", r"\s+")
        if re.search(words, opening, re.IGNORECASE | re.DOTALL):
            return spdx
    return None


def judge(declared: str | None, allowed: tuple[str, ...]) -> Verdict:
    """What an allow list says to a declared licence: a name, an SPDX expression, or a whole text.

    Reasons: no_licence (nothing is declared), copyleft (it names a copyleft or a source-available licence),
    licence_not_allowed (an SPDX id that is not on the list), unknown_licence (anything else).
    """
    stated = (declared or "").strip()
    if stated.upper() in _NOTHING:
        return Verdict(None, "no_licence")
    # A text differs from document to document, so only its opening is a key; what follows it decides nothing.
    return _judge(stated[:_OPENING_CHARACTERS], allowed)


@lru_cache(maxsize=10_000)
def _judge(stated: str, allowed: tuple[str, ...]) -> Verdict:
    shown = "".join(each if each.isprintable() else " " for each in stated[:400])
    shown = " ".join(shown.split())[:120]
    if is_text(stated):
        if _SOURCE_AVAILABLE.search(stated):
            return Verdict(None, "copyleft", shown)
        found = from_text(stated)
        if found is None:
            return Verdict(None, "copyleft" if _COPYLEFT.search(stated) else "unknown_licence", shown)
        return Verdict(found) if found in allowed else Verdict(None, "licence_not_allowed", found)
    expression = _expression(stated, allowed)
    try:
        outside = refused(expression, allowed)
    except (ValueError, RecursionError):  # thousands of brackets are no expression either
        return Verdict(None, "copyleft" if _COPYLEFT.search(stated) else "unknown_licence", shown)
    if not outside:
        return Verdict(" ".join(expression.split()))
    if any(_COPYLEFT.search(each) for each in outside):
        return Verdict(None, "copyleft", shown)
    known = all(each in _SPDX or each.startswith("LicenseRef-") for each in outside)
    return Verdict(None, "licence_not_allowed" if known else "unknown_licence", shown)


def is_text(declared: str) -> bool:
    """Whether a declaration is a whole licence text rather than a name or an expression."""
    return "\n" in declared or (len(declared) > 100 and not re.search(r"\b(?:AND|OR)\b", declared))


def _expression(name: str, allowed: tuple[str, ...]) -> str:
    """A name as people write it as an SPDX id; anything else as it is."""
    folded = _fold(name)
    ids = {each.lower(): each for each in allowed}
    return ids.get(folded) or _NAMES.get(folded) or _AMBIGUOUS.get(folded) or name


def declare(
    *, expression: str | None, field: str | None, classifiers: Sequence[str], texts: Callable[[], Sequence[str]]
) -> str | None:
    """What a distribution declares, as `judge` takes it; None when it declares nothing.

    `texts` reads its licence files, only when a name leaves the id open. A copyleft name anywhere decides.
    """
    if expression:
        return expression
    named = [line.removeprefix("License :: ").removeprefix("OSI Approved :: ") for line in classifiers]
    short = field.strip() if field else ""
    short = "" if short.upper() in _NOTHING else short
    for name in [short, *named]:
        if name and not is_text(name) and _COPYLEFT.search(name):
            return name
    if is_text(short):
        if from_text(short):
            return short
    elif known := _from_name(short, texts):
        return known
    found = [_from_name(name, texts) for name in named]
    if found and all(found):
        return " AND ".join(sorted({str(each) for each in found}))
    return short or next((name for name, spdx in zip(named, found, strict=True) if not spdx), None)


def _from_name(name: str, texts: Callable[[], Sequence[str]]) -> str | None:
    """The SPDX expression behind one name, read from the licence files where the name fits several licences."""
    folded = _fold(name)
    if folded in _NAMES:
        return _NAMES[folded]
    if folded in _AMBIGUOUS:
        return next((spdx for text in texts() if (spdx := from_text(text))), _AMBIGUOUS[folded])
    return name if re.search(r"\s(?:AND|OR|WITH)\s", name) else None
