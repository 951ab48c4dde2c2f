"""Licences as SPDX ids: from what a distribution says about itself, and whether an allow list lets them in.

Covers: License-Expression (PEP 639), the License field as a name or as a whole licence text, licence files beside the
metadata, trove classifiers. Unknown stays unknown: nothing is guessed from a name that two licences share.
Not covered: licences of single files that differ from their distribution's.
"""

import re
from collections.abc import Callable, Collection, Sequence
from functools import cache

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


class RefusedError(Exception):
    """Why a distribution's files stay out: copyleft or unknown_licence."""


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


def normalise(
    *,
    expression: str | None,
    field: str | None,
    classifiers: Sequence[str],
    texts: Callable[[], Sequence[str]],
    allowed: tuple[str, ...] = PERMISSIVE,
) -> str:
    """The SPDX expression of a distribution, every id of it in `allowed`.

    `texts` reads its licence files, only when a name leaves the id open. Raises RefusedError: copyleft when any
    statement names a copyleft or a source-available licence, else unknown_licence.
    """
    if expression:
        return _checked(expression, allowed)
    named = [line.removeprefix("License :: ").removeprefix("OSI Approved :: ") for line in classifiers]
    short = field.strip() if field else ""
    short = "" if short.upper() == "UNKNOWN" else short
    is_text = len(short) > 100 or "\n" in short
    if any(_COPYLEFT.search(name) for name in [*named, "" if is_text else short]):
        if not is_text and re.search(r"\b(?:OR|AND)\b", short):
            return _checked(short, allowed)
        raise RefusedError("copyleft")
    from_field = from_text(short) if is_text else _from_name(short, texts, allowed)
    if from_field and not refused(from_field, allowed):
        return from_field
    found = [_from_name(name, texts, allowed) for name in named]
    known = sorted({spdx for spdx in found if spdx})
    if known and all(found):
        return _checked(" AND ".join(known), allowed)
    raise RefusedError("unknown_licence")


def _checked(expression: str, allowed: tuple[str, ...]) -> str:
    """The expression when the allow list lets it in; raises RefusedError otherwise."""
    try:
        outside = refused(expression, allowed)
    except ValueError as error:
        raise RefusedError("unknown_licence") from error
    if outside:
        raise RefusedError("copyleft" if any(_COPYLEFT.search(spdx) for spdx in outside) else "unknown_licence")
    return " ".join(expression.split())


def _from_name(name: str, texts: Callable[[], Sequence[str]], allowed: tuple[str, ...]) -> str | None:
    """The SPDX expression behind one name, read from the licence files where the name fits several licences."""
    folded = _fold(name)
    if folded in _NAMES:
        return _NAMES[folded]
    if folded in _AMBIGUOUS:
        return next((spdx for text in texts() if (spdx := from_text(text))), _AMBIGUOUS[folded])
    if re.search(r"\s(?:AND|OR|WITH)\s", name):
        try:
            return name if not refused(name, allowed) else None
        except ValueError:
            return None
    return None
