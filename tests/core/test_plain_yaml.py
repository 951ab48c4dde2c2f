"""Whatever bytes a YAML file holds: plain values, or a ConfigError with one line, in bounded time and memory."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.core import plain_yaml
from components.core.config import read_yaml
from components.core.errors import ConfigError
from components.core.graph.closure import ROOT

DOCUMENT = b"""\
# What runs.
environment: production
versions:
  - {version: 1, digest: 'aa', weight: 60}  # old
  - version: 2
    digest: "b\\u00e9"
    weight: 40
notes: [1.5, -3, true, null, ~, |-, text]
text: >-
  folded
  lines
"""
HOSTILE = (
    *(b"&a ", b"*a", b"&a [*a]", b"<<: ", b"!!float 'x'", b"!!python/name:os.system ", b"%YAML 1.1\n---\n", b"---\n"),
    *(b"[" * 3000, b"{" * 3000, b"- " * 3000, b"? ", b"\xe9", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\t", b"\x85"),
    *(b".nan", b"-.inf", b"1e400", b"9" * 5000, b"0x" + b"f" * 5000, b"2024-02-30", b"0777", b"yes", b"=", b"\r"),
    *("\u2028".encode(), "\u0085".encode(), b'"\\ud800"', b'"\\x00"', b"|9", b">", b"`", b"@", b": ", b"...\n"),
)
mutations = st.lists(
    st.tuples(st.integers(0, len(DOCUMENT)), st.integers(0, 12), st.sampled_from(HOSTILE) | st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # A text of controls and surrogates alone is no YAML; the two breaks that JSON does not know are folded in quotes.
    | st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\ufeff\ufffe\uffff")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4),
    max_leaves=12,
)


def refusal(content: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        plain_yaml.parse(content, "file.yaml")
    line = str(caught.value)
    assert line.startswith("file.yaml: ") and line.isprintable() and len(line) < 400
    return line


def check(content: bytes) -> None:
    """Plain values, in either reader, or one line."""
    try:
        value = plain_yaml.parse(content, "file.yaml")
    except ConfigError as error:
        assert str(error).isprintable() and len(str(error)) < 400
        with pytest.raises(ConfigError):
            plain_yaml.parse_commented(content, "file.yaml")
        return
    json.dumps(value, allow_nan=False)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_one_line(content: bytes) -> None:
    check(content)


@given(mutations)
@example([(DOCUMENT.index(b"\n  - "), 0, b" &all")])
def test_any_change_of_a_document_is_a_value_or_one_line(changes: list[tuple[int, int, bytes]]) -> None:
    content = DOCUMENT
    for place, length, new in changes:
        content = content[:place] + new + content[place + length :]
    check(content)


@given(values)
def test_json_is_read_as_it_is(value: Any) -> None:
    assert plain_yaml.parse(json.dumps(value, ensure_ascii=False), "file.yaml") == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"versions: &a [*a]", "line 1 has the anchor &a"),
        (b"a: 1\nb: *a", "line 2 has the alias *a"),
        (b"a: [" * 10 + b"&x 1", "the anchor &x"),
        (b"[" * 3000, "nested more than 40 deep"),
        (b"[" * 3_000_000, "nested more than 40 deep"),
        (b"{a: " * 3000, "nested more than 40 deep"),
        (b"? " * 3000, "nested more than 40 deep"),
        (b'a: !!float "x"', "the tag tag:yaml.org,2002:float"),
        (b"a: !!binary aGk=", "the tag tag:yaml.org,2002:binary"),
        (b"a: ! b", "the tag !"),
        (b"a: !!python/object/apply:os.system ['true']", "the tag tag:yaml.org,2002:python"),
        (b"a: \xe9", "needed UTF-8; save it as UTF-8"),
        ("a: 1".encode("utf-16"), "needed UTF-8; save it as UTF-8"),
        (b"a: b\x00", "control characters are not allowed"),
        (b"a: \x1b[31m", "control characters are not allowed"),
        (b'"\\ud800"', "invalid Unicode"),
        (b"\ta: 1", "cannot start any token"),
        (b"a: 1\n---\nb: 2", "line 2 starts a second document"),
        (b"%YAML 1.1\n---\na: yes", "directive"),
        (b"a: 1\nb: 2\na: 3", "line 3 has a duplicate key, a"),
        (b"<<: {a: 1}", "merge key"),
        (b"1: 2", "the key 1, which is no text; quote it"),
        (b"? [a]\n: b", "the key ['a'], which is no text"),
        (b"~: 1", "the key None"),
        (b"a: .nan", "line 1 has .nan; needed a finite number"),
        (b"a: -.INF", "line 1 has -.INF"),
        (b"a: 1e400", "line 1 has 1e400"),
        (b"a: " + b"9" * 5000, "at most 64 bits"),
        (b"a: 0x" + b"f" * 5000, "at most 64 bits"),
        (b"a: -18446744073709551616", "at most 64 bits"),
        (b"[" + b"a," * 300_000, "more than 200,000 values"),
        (b"#" * 10_000_000, "larger than 4,194,304 bytes"),
        (b"a: [1, 2", "not valid YAML"),
    ],
)
def test_what_is_refused_is_said_in_one_line(content: bytes, said: str) -> None:
    assert said in refusal(content)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing\n", None),
        ("\ufeffa: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("[yes, no, on, off, y, n]", ["yes", "no", "on", "off", "y", "n"]),
        ("[true, False, NULL, ~, ]", [True, False, None, None]),
        ("[010, 0o10, 0x1F, 0b11, 2_000, +5, -3]", [10, 8, 31, 3, 2000, 5, -3]),
        ("[1., .5, 1e3, -1.5E-2, 1_0.5]", [1.0, 0.5, 1000.0, -0.015, 10.5]),
        ("[2024-02-30, 12-30, 1.2.3, =, 0x, 1_, '1']", ["2024-02-30", "12-30", "1.2.3", "=", "0x", 1, "1"]),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ('a: "\\x00"', {"a": "\0"}),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    assert plain_yaml.parse(text, "file.yaml") == value


def test_every_file_of_this_repository_is_read_with_its_comments() -> None:
    files = [ROOT / "opt-out.yaml", *ROOT.glob("profiles/*.yaml"), *ROOT.glob("infra/environments/*.yaml")]
    for path in files:
        content = path.read_bytes()
        assert plain_yaml.parse_commented(content, str(path)) == plain_yaml.parse(content, str(path))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"a" * 5_000_000)
    for name, said in (("large.yaml", "larger than"), ("absent.yaml", "not found"), (".", "cannot be read")):
        with pytest.raises(ConfigError, match=said):
            read_yaml(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(Path("a\0b"))
