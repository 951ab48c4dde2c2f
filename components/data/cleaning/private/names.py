"""Names of persons in author lines.

Covers: `Author:`, `@author`, `__author__ =`, maintainers, Signed-off-by and its relatives, created or written by; as a
choice of its own the holders in copyright lines. A name is two to four capitalised words.
Not covered: names in prose, handles, names of one word. Organisations are told by their words (Inc, Foundation, Team,
The ... Authors); one that is called like a person is taken for one.
"""

import re

from components.data.cleaning.private.rule import Accept, Rule, line_after, line_before, words

_CAPITAL = r"[A-ZÀ-ÖØ-ÞĀ-Ž](?:[\w'’\-]*\w)?"
_PARTICLE = r"(?:de|da|di|del|van|von|der|den|la|le|bin|al|of) "
_NAME = rf"{_CAPITAL}(?:(?:(?<=\b[A-Z])\.)? (?:{_PARTICLE}){{0,2}}{_CAPITAL}){{1,3}}"
_ORGANISATIONS = words(
    "the inc corp corporation ltd limited llc llp gmbh ag sa bv co company foundation team authors author developers "
    "contributors university institute college school regents project group software authority community lab labs "
    "laboratory laboratories technologies technology systems solutions services research consortium association "
    "society organization organisation committee council federation network networks media studio studios center "
    "centre department government google microsoft meta facebook nvidia intel amazon apple openai anthropic "
    "huggingface deepmind mozilla apache all rights reserved see license licence copyright python django tensorflow "
    "pytorch none unknown various first last your name file authors contributor"
)
_AUTHOR = (
    r"(?:@author:?|\b(?:author|maintainer|contributor|contact)s?\b[\"']?[ \t]{0,8}[:=]|"
    r"__(?:author|maintainer|credits)__[ \t]{0,8}=|"
    r"\b(?:signed-off|reviewed|acked|tested|reported|suggested|co-authored)-by:|"
    r"\b(?:created|written|developed|maintained|implemented) by:?|\bMODULE_AUTHOR\()"
)
_YEARS = r"(?:\d{4}(?:[ \t]?[,\-–][ \t]?(?:\d{4}|\d\d|present))*,?[ \t]{1,4}){1,4}"
_COPYRIGHT = rf"(?:(?:\bcopyright\b|\(c\)|©)[ \t]{{0,4}}(?:\(c\)|©)?[ \t]{{0,4}}{_YEARS}(?:by[ \t])?)"
_OPEN = r"[ \t\"'\[(*_]{0,8}"
_NEXT = rf"(?:,|;|&|\band\b)[ \t]{{1,4}}(?:and[ \t])?({_NAME})"


def _is_person(match: re.Match[str]) -> bool:
    """No word of an organisation in the name or right after it."""
    after = re.match(r"[ \t,]{0,2}([\w']+)", line_after(match.string, match.end(1), 32))
    around = re.findall(r"[\w']+", match[1]) + ([after[1]] if after else [])
    return all(word.lower() not in _ORGANISATIONS for word in around)


def _follows_a_name(marker: str) -> Accept:
    """Whether what stands before a name, on its line, is an author line of names and addresses."""
    person = rf"{_NAME}(?:[ \t]{{0,4}}[<(][^<>()]{{0,80}}[>)])?"
    line = re.compile(
        rf"(?i:{marker}){_OPEN}{person}(?:[ \t]{{0,4}}(?:,|;|&|and)[ \t]{{1,4}}{person}){{0,12}}[ \t]{{0,4}}$"
    )

    def accept(match: re.Match[str]) -> bool:
        return _is_person(match) and line.search(line_before(match.string, match.start(), 400)) is not None

    return accept


def name_rules(*, copyright_names: bool) -> tuple[Rule, ...]:
    """The rules for names; `copyright_names` adds the holders in copyright lines."""
    marker = f"(?:{_AUTHOR}|{_COPYRIGHT})" if copyright_names else _AUTHOR
    hint = rf"(?i){marker}"
    first = re.compile(rf"(?i:{marker}){_OPEN}({_NAME})")
    return (
        Rule(name="author", kind="name", hint=hint, pattern=first, accept=_is_person, group=1),
        Rule(
            name="next_author",
            kind="name",
            hint=hint,
            pattern=re.compile(_NEXT),
            accept=_follows_a_name(marker),
            group=1,
        ),
    )
