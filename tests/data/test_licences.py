"""Licences normalise to what they are, and nothing that is not plainly permissive gets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.licences import PERMISSIVE, declare, from_text, judge, refused

MIT = "Permission is hereby granted, free of charge, to any person obtaining\n a copy of this software"
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
        ("The MIT License\n\n" + MIT + "x" * 100_000, PERMISSIVE, ("MIT", "", "")),
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
