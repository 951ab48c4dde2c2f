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

from components.core.errors import one_line
from components.data.documents.licence_text import MAX_CHARACTERS, recognise

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
# What takes back the permission that the same text gives, however a distribution names its licence.
_SOURCE_AVAILABLE = re.compile(r"Commons Clause|Business Source License|Server Side Public License", re.IGNORECASE)
_TAKES_BACK = re.compile(
    r"\bnon[-\s]?commercial\b(?!\s+(?:or|and|distribution)\b)|\b(?:evaluation|academic|research|educational|personal)\s+(?:use|purposes)\s+only"
    r"|\bnot\s+(?:be\s+)?(?:used\s+)?for\s+(?:any\s+)?(?:commercial|military|evil)|\bfor\s+good,?\s+not\s+evil",
    re.IGNORECASE,
)
SHOWN_CHARACTERS = 120
_OPENING_CHARACTERS = 20_000  # in which a text names its licence
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
    ids, rest = _either(tokens, allowed)
    if rest:
        raise ValueError(f"{expression!r} is not an SPDX expression: unexpected {rest[0]!r}")
    return tuple(sorted(ids))


def _either(tokens: list[str], allowed: Collection[str]) -> tuple[set[str], list[str]]:
    ids, rest = _both(tokens, allowed)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:], allowed)
        ids = ids | other if ids and other else set()
    return ids, rest


def _both(tokens: list[str], allowed: Collection[str]) -> tuple[set[str], list[str]]:
    ids, rest = _one(tokens, allowed)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:], allowed)
        ids |= other
    return ids, rest


def _one(tokens: list[str], allowed: Collection[str]) -> tuple[set[str], list[str]]:
    if not tokens or tokens[0] == ")" or tokens[0].upper() in ("AND", "OR", "WITH"):
        raise ValueError("an SPDX expression ends too early or lacks an id")
    if tokens[0] == "(":
        ids, rest = _either(tokens[1:], allowed)
        if not rest or rest[0] != ")":
            raise ValueError("an SPDX expression lacks a closing bracket")
        return ids, rest[1:]
    ids, rest = set() if tokens[0] in allowed else {tokens[0]}, tokens[1:]
    if rest and rest[0].upper() == "WITH":
        if len(rest) < 2 or rest[1] not in _EXCEPTIONS:
            raise ValueError(f"an SPDX expression names no known exception after WITH in {tokens}")
        rest = rest[2:]
    return ids, rest


def from_text(text: str) -> str | None:
    """The SPDX expression of a licence text that is one or several licences' and nothing more; None for any other."""
    recognition = recognise(text)
    return " AND ".join(recognition.licences) if recognition.licences and not recognition.beyond else None


def takes_back(text: str) -> bool:
    """Whether a text says that somebody or some use is left out, whatever licence it is or beside it."""
    if _SOURCE_AVAILABLE.search(text) is not None:
        return True
    recognition = recognise(text)
    return bool(recognition.beyond) and "CC0-1.0" not in recognition.licences and _TAKES_BACK.search(text) is not None


def judge(declared: str | None, allowed: tuple[str, ...]) -> Verdict:
    """What an allow list says to a declared licence: a name, an SPDX expression, or a whole text.

    Reasons: no_licence (nothing is declared), copyleft (it names a copyleft or a source-available licence),
    licence_not_allowed (an SPDX id that is not on the list), unknown_licence (anything else).
    """
    stated = (declared or "").strip()
    if stated.upper() in _NOTHING:
        return Verdict(None, "no_licence")
    # One character more than the longest text that is read: such a text is none that we know.
    return _judge_text(stated[: MAX_CHARACTERS + 1], allowed) if is_text(stated) else _judge_name(stated, allowed)


def _shown(stated: str) -> str:
    return one_line(stated, SHOWN_CHARACTERS)


@lru_cache(maxsize=100)  # a text may be long, and a source's documents have few different ones
def _judge_text(stated: str, allowed: tuple[str, ...]) -> Verdict:
    if _SOURCE_AVAILABLE.search(stated):
        return Verdict(None, "copyleft", _shown(stated))
    recognition = recognise(stated)
    if recognition.licences and not recognition.beyond:
        outside = [each for each in recognition.licences if each not in allowed]
        if outside:
            return Verdict(None, "licence_not_allowed", ", ".join(outside))
        return Verdict(" AND ".join(recognition.licences))
    if _COPYLEFT.search(stated, 0, _OPENING_CHARACTERS):
        return Verdict(None, "copyleft", _shown(stated))
    beyond = (
        f"{' and '.join(recognition.licences)}, and beyond it: {recognition.beyond}" if recognition.licences else stated
    )
    return Verdict(None, "unknown_licence", _shown(beyond))


@lru_cache(maxsize=10_000)
def _judge_name(stated: str, allowed: tuple[str, ...]) -> Verdict:
    shown = _shown(stated)
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

    `texts` reads its licence files, whose texts say which licence a name leaves open, and may take back what a name
    gives. A copyleft name anywhere decides.
    """
    if back := next((text for text in texts() if takes_back(text)), None):
        return back
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
    expressions = [_from_name(name, texts) for name in named]
    if expressions and all(expressions):
        return " AND ".join(sorted({str(each) for each in expressions}))
    return short or next((name for name, spdx in zip(named, expressions, strict=True) if not spdx), None)


def _from_name(name: str, texts: Callable[[], Sequence[str]]) -> str | None:
    """The SPDX expression behind one name, read from the licence files where the name fits several licences."""
    folded = _fold(name)
    if folded in _NAMES:
        return _NAMES[folded]
    if folded in _AMBIGUOUS:
        family = folded.split()[0]
        named = (spdx for text in texts() for spdx in recognise(text).licences if spdx.lower().startswith(family))
        return next(named, _AMBIGUOUS[folded])
    return name if re.search(r"\s(?:AND|OR|WITH)\s", name) else None
