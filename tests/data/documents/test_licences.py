"""Licences normalise to what they are, and nothing that is not plainly permissive gets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.text import readable
from components.data.documents.licence_text import RUN, TEXTS, recognise, words
from components.data.documents.licences import PERMISSIVE, declare, from_text, judge, refused
from components.data.sources.reading.tree import governed_by, is_licence_file


def text_of(spdx: str) -> str:
    return (TEXTS / f"{spdx}.txt").read_text(encoding="utf-8")


MIT = text_of("MIT")
BSD = "Redistribution and use in source and binary forms, with or without modification, are permitted provided that"
BSD_3 = BSD + " the following conditions are met: ... Neither the name of the copyright holder nor"


def licence(
    expression: str | None = None, field: str | None = None, classifiers: tuple[str, ...] = (), text: str = ""
) -> str:
    """The normalised licence, or the reason that it was refused for."""
    names = tuple(f"License :: {name}" for name in classifiers)
    declared = declare(expression=expression, field=field, classifiers=names, texts=lambda: [text])
    verdict = judge(declared, PERMISSIVE)
    assert (verdict.licence is None) is bool(verdict.reason)
    return verdict.licence or verdict.reason


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ({"expression": "Apache-2.0 AND MIT"}, "Apache-2.0 AND MIT"),
        ({"expression": "Apache-2.0 OR GPL-2.0-or-later"}, "Apache-2.0 OR GPL-2.0-or-later"),
        ({"expression": "MPL-2.0 AND (Apache-2.0 OR MIT)"}, "copyleft"),
        ({"expression": "LicenseRef-Anything"}, "licence_not_allowed"),
        ({"expression": "Apache-2.0 WITH LLVM-exception"}, "Apache-2.0 WITH LLVM-exception"),
        ({"field": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"field": "The MIT License (MIT)\n\nCopyright (c)\n\n" + MIT}, "MIT"),
        ({"field": "Copyright (c) 2001, 2002 Enthought, Inc.\n" + BSD_3}, "BSD-3-Clause"),
        ({"field": "Copyright (c) 2001, 2002 Enthought, Inc.\n" + BSD}, "BSD-2-Clause"),
        ({"field": "UNKNOWN", "classifiers": ("OSI Approved :: Apache Software License",)}, "Apache-2.0"),
        ({"field": "BSD", "text": BSD}, "BSD-2-Clause"),
        ({"field": "BSD", "text": BSD_3}, "BSD-3-Clause"),
        ({"field": "BSD"}, "unknown_licence"),
        ({"field": "GPLv2 | EPLv1"}, "copyleft"),
        ({"field": "GPLv2 with linking exception"}, "copyleft"),
        ({"field": "EPL-2.0 OR GPL-2.0-or-later"}, "copyleft"),
        ({"field": "MPL-2.0 AND MIT"}, "copyleft"),
        ({"field": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0"),
        ({"field": "MIT", "classifiers": ("OSI Approved :: GNU General Public License v3 (GPLv3)",)}, "copyleft"),
        ({"classifiers": ("OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",)}, "copyleft"),
        ({"classifiers": ("OSI Approved",)}, "unknown_licence"),
        ({"classifiers": ("OSI Approved :: MIT License", "Other/Proprietary License")}, "unknown_licence"),
        ({"field": "Dual License", "classifiers": ("OSI Approved :: ISC License (ISCL)",)}, "ISC"),
        ({}, "no_licence"),
    ],
)
def test_what_a_distribution_says_becomes_an_spdx_id_or_a_reason(given_: dict[str, str], wanted: str) -> None:
    assert licence(**given_) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declared", "allowed", "wanted"),
    [
        (None, PERMISSIVE, (None, "no_licence", "")),
        ("  unknown ", PERMISSIVE, (None, "no_licence", "")),
        ("mit", PERMISSIVE, ("MIT", "", "")),
        ("MIT\u0000\u001b[31m", PERMISSIVE, (None, "unknown_licence", "MIT [31m")),
        ("MIT AND  Apache-2.0", PERMISSIVE, ("MIT AND Apache-2.0", "", "")),
        ("cc-by-sa-4.0", ("CC-BY-SA-4.0",), ("CC-BY-SA-4.0", "", "")),
        ("CC-BY-SA-4.0", PERMISSIVE, (None, "copyleft", "CC-BY-SA-4.0")),
        ("WTFPL", PERMISSIVE, (None, "licence_not_allowed", "WTFPL")),
        ("The MIT License\n\n" + MIT, PERMISSIVE, ("MIT", "", "")),
        (MIT + "x " * 100_000, PERMISSIVE, (None, "unknown_licence", None)),
        (text_of("ISC") + MIT, PERMISSIVE, ("ISC AND MIT", "", "")),
        (text_of("ISC") + MIT, ("MIT",), (None, "licence_not_allowed", "ISC")),
        ("The MIT License\n\n" + MIT, ("ISC",), (None, "licence_not_allowed", "MIT")),
        ("Commons Clause Condition\n" + MIT, PERMISSIVE, (None, "copyleft", None)),
        ("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007", PERMISSIVE, (None, "copyleft", None)),
        ("x" * 5_000_000, PERMISSIVE, (None, "unknown_licence", "x" * 120)),
    ],
)
def test_a_declaration_is_judged(
    declared: str | None, allowed: tuple[str, ...], wanted: tuple[str | None, str, str | None]
) -> None:
    found = judge(declared, allowed)
    assert found[:2] == wanted[:2]
    assert wanted[2] is None or found.detail == wanted[2]
    assert len(found.detail) <= 120 and "\n" not in found.detail


def expressions(depth: int = 3) -> st.SearchStrategy[tuple[str, bool]]:
    """SPDX expressions beside whether they are let in, built by the rules and not by the parser."""
    leaf = st.sampled_from([("MIT", True), ("ISC", True), ("GPL-3.0-only", False), ("LicenseRef-x", False)])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: (f"({two[0][0]} AND {two[1][0]})", two[0][1] and two[1][1])),
            st.tuples(inner, inner).map(lambda two: (f"({two[0][0]} OR {two[1][0]})", two[0][1] or two[1][1])),
        ),
        max_leaves=6,
    )


@given(expressions())
def test_an_expression_is_let_in_by_the_rules_of_and_and_or(case: tuple[str, bool]) -> None:
    expression, let_in = case
    assert (refused(expression, PERMISSIVE) == ()) is let_in


def test_and_binds_tighter_than_or() -> None:
    assert refused("MIT OR ISC AND GPL-3.0-only", PERMISSIVE) == ()
    assert refused("(MIT OR ISC) AND GPL-3.0-only", PERMISSIVE) == ("GPL-3.0-only",)


@pytest.mark.parametrize("text", ["", "MIT AND", "(MIT", "MIT ISC", "MIT WITH anything", "MIT; rm", "OR MIT"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SPDX expression"):
        refused(text, PERMISSIVE)


def test_a_text_that_is_no_licence_is_none() -> None:
    assert from_text("All rights reserved.") is None


@pytest.mark.parametrize("spdx", PERMISSIVE)
def test_every_licence_of_the_allow_list_is_known_by_its_own_text(spdx: str) -> None:
    text = text_of(spdx)
    narrow = "\n".join(word for word in text.split())
    marked = "\n".join(f" *  {line}" for line in text.splitlines())
    for each in (text, text.upper(), narrow, marked, "\ufeff" + text.replace("\n", "\r\n")):
        assert from_text(each) == spdx
    named = text.replace("<year>", "1999-2024").replace(
        "<copyright holders>", "The Will & Grant Research Company, Inc."
    )
    assert judge(named, PERMISSIVE) == (spdx, "", "")


# Each takes back, or asks for, what the licence beside it does not.
ADDED = (
    "The permission above is given for non-commercial use only.",
    "The Software shall be used for Good, not Evil.",
    "Commons Clause License Condition v1.0",
    "This software may not be used by the military.",
    "Companies with more than ten employees pay a fee.",
    "You must not use the Software to train a machine learning model.",
    "Evaluation purposes.",
    "Redistribution requires written consent.",
    "Contact the author before any use in production.",
    "This permission expires on 1 January 2022.",
    "Except for use in competing products.",
    "Notwithstanding the foregoing, hosting is prohibited.",
    "Nur fuer den privaten Gebrauch; "
    + "kommerzielle Nutzung ist untersagt und bedarf der Zustimmung des Urhebers " * 5,
)


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("spdx", ["MIT", "BSD-3-Clause", "Apache-2.0", "Zlib", "Unlicense"])
@pytest.mark.parametrize("place", ["before", "inside", "after", "in the line of copyright"])
def test_a_sentence_more_makes_a_licence_unknown(added: str, spdx: str, place: str) -> None:
    text = text_of(spdx)
    paragraphs = text.split("\n\n")
    match place:
        case "before":
            text = f"{added}\n\n{text}"
        case "inside":
            text = "\n\n".join([*paragraphs[:-1], added, paragraphs[-1]])
        case "after":
            text = f"{text}\n{added}\n"
        case _:
            text = f"Copyright (c) 2020 Somebody. {added}\n\n{text}"
    verdict = judge(text, PERMISSIVE)
    assert verdict.licence is None and verdict.reason in ("unknown_licence", "copyleft")
    assert verdict.reason == "copyleft" or f"{spdx}, and beyond it: " in verdict.detail


def test_a_word_more_or_another_one_in_a_grant_makes_it_unknown() -> None:
    for old, new in (
        ("free of charge", "free of charge for one year"),
        ("without restriction", "with the restriction of private use"),
        ("to any person", "to any natural person"),
        ("use, copy, modify, merge, publish", "use, copy"),
        ("and/or sell\ncopies", "but not sell\ncopies"),
    ):
        assert old in MIT
        assert from_text(MIT.replace(old, new)) is None, new


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (MIT.split("EXPRESS OR")[0], "MIT"),
        (f"My project, by Jane Doe <jane@example.org>\n\n{MIT}", "MIT"),
        (MIT + "\n---\n\nThe parser (parser.py)\n\n" + text_of("BSD-2-Clause"), "BSD-2-Clause AND MIT"),
        (text_of("BSD-3-Clause").replace("the copyright holder nor", "Acme, Inc. nor"), "BSD-3-Clause"),
        (text_of("BSD-3-Clause").replace("\n3. ", "\n  * "), "BSD-3-Clause"),
        (text_of("Apache-2.0").split("APPENDIX")[0], "Apache-2.0"),
        (
            "Copyright 2020 A\n" + text_of("Apache-2.0").split("identification within third-party archives.")[1],
            "Apache-2.0",
        ),
        (text_of("Python-2.0").split("B. TERMS AND")[1], "Python-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n" + MIT, None),
        (
            MIT
            + "\n"
            + text_of("BSD-3-Clause").split("Redistribution")[0]
            + "All of it may be used under GPL-3.0 only.",
            None,
        ),
    ],
)
def test_parts_names_and_several_texts(text: str, wanted: str | None) -> None:
    assert from_text(text) == wanted


def test_a_text_takes_time_that_grows_with_its_length() -> None:
    """Every run of words is looked up once, whatever it says: no search goes back in the text."""
    for text in (
        MIT * 150,
        "copyright " * 19_000,
        "(c) " * 49_000,
        "permission is hereby granted " * 6000,
        "a" * 199_999,
    ):
        assert len(text) < 200_000
        assert recognise(text) is not None
    assert recognise("a " * 10**6).licences == ()


def test_the_first_words_beyond_a_licence_are_said() -> None:
    found = recognise(MIT + "\nNot for use in reactors.\n")
    assert found == (("MIT",), "not for use in reactors")
    assert len(words("Not for use in reactors")) > RUN


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_text_is_read_in_the_encoding_that_it_begins_with(encoding: str) -> None:
    mark = "" if encoding in ("utf-8", "utf-8-sig", "utf-16") else "\ufeff"
    assert from_text(readable((mark + MIT.replace("\n", "\r\n")).encode(encoding))) == "MIT"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "LICENSE",
            "LICENCE",
            "license.txt",
            "LICENSE.md",
            "LICENSE.rst",
            "LICENSES",
            "COPYING",
            "COPYING.LESSER",
            "UNLICENSE",
        ),
        *(
            "LICENSE-MIT",
            "LICENSE_APACHE",
            "LICENSE.BSD",
            "MIT-LICENSE",
            "MIT-LICENSE.txt",
            "BSD_LICENSE.txt",
            "mit.LICENSE",
        ),
    ],
)
def test_names_of_licence_files(name: str) -> None:
    assert is_licence_file(name)
    assert governed_by(name) == "" and governed_by(f"a/b/{name}") == "a/b"


@pytest.mark.parametrize(
    "name", ["license.py", "licenses.go", "my_license_check.txt", "README.md", "LICENSE.py", "copying.c"]
)
def test_names_of_other_files(name: str) -> None:
    assert governed_by(name) is None


def test_a_folder_of_licences_speaks_for_what_lies_beside_it() -> None:
    assert governed_by("LICENSES/MIT.txt") == ""
    assert governed_by("part/LICENSES/GPL-3.0-or-later.txt") == "part"
    assert governed_by("LICENSES/check.py") is None
    assert governed_by("docs/MIT.txt") is None


def test_a_distributions_own_text_takes_back_what_its_name_gives() -> None:
    for expression, name in ((None, "MIT"), ("MIT", None)):
        assert licence(expression, name, text=MIT) == "MIT"
        assert licence(expression, name, text=MIT + "\n" + ADDED[0]) == "unknown_licence"
