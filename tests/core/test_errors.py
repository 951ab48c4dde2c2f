"""Messages stay on their line, whatever they repeat."""

import pytest

from components.core.errors import OvernightError, one_line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("a\n\tb  c", "a b c"),
        ("a\x1b[31mb\u202ec", "a [31mb c"),
        ("caf\u00e9 \ud800", "caf\u00e9 \\ud800"),
        (OvernightError("a\nb"), "a b"),
        (KeyError(), "KeyError"),
        ("", ""),
        ("x" * 300, "x" * 200),
    ],
)
def test_anything_becomes_one_line_that_can_be_shown_and_written(said: object, line: str) -> None:
    assert one_line(said) == line
    assert one_line(said).encode().decode() == line
