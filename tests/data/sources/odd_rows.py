"""Rows with values of any type, for whoever wants to see that none of them ends anything."""

import datetime
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

# Where each shape has its text.
SHAPES = {"plain": "text", "the-stack": "content", "stackexchange": "text"}
GOOD = "def good():\n    return 1\n"
# Names that a shape knows, names that only look like one, and names that nobody would choose.
KEYS = ("text", "path", "package", "version", "licence", "language", "author", "question", "answers", "content", "lang")
ODD_KEYS = (
    "license",
    "meta",
    "meta.url",
    "qid",
    "date",
    "max_stars_repo_licenses",
    "Text",
    "",
    ".",
    "text.text",
    "\ud800",
)


def _one_of(values: list[Any]) -> st.SearchStrategy[Any]:
    """One of some values, which are too large to be shown as `sampled_from` would."""
    return st.integers(0, len(values) - 1).map(values.__getitem__)


_CHARACTERS = st.characters(codec=None)  # halves of characters, too
_TEXTS = st.one_of(
    st.text(_CHARACTERS, max_size=12),
    _one_of(
        ["", " ", "a\\b\\c.py", "../x.py", "MIT", "(" * 1_000 + "MIT AND ISC", "\ufeffx = 1\n", "x" * 20_000, "a\0b\n"]
    ),
)
_NUMBERS = st.one_of(st.integers(-(2**70), 2**70), _one_of([10**30, -(10**400), 10**4_000]), st.floats(), st.booleans())
_SCALARS = st.one_of(st.none(), _NUMBERS, _TEXTS).map(json.dumps)


def _object(pairs: list[tuple[str, str]]) -> str:
    """Keys, which may repeat, with their values in JSON."""
    return "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in pairs) + "}"


def _list(values: list[str]) -> str:
    return f"[{','.join(values)}]"


def _deep(depth: int, inside: str) -> str:
    return '[{"text":' * depth + inside + "}]" * depth


# Values in JSON, as no writer would write some of them.
VALUES = st.one_of(
    _SCALARS,
    st.recursive(
        _SCALARS,
        lambda inside: (
            st.lists(inside, max_size=4).map(_list)
            | st.lists(st.tuples(st.sampled_from(KEYS) | _TEXTS, inside), max_size=4).map(_object)
        ),
        max_leaves=12,
    ),
    st.builds(_deep, st.integers(1, 5).map([0, 5, 30, 200, 500, 5_000].__getitem__), _SCALARS),
    _one_of(["1e999", "9" * 5_000, "NaN", "-Infinity", "nul", '"', '"\\ud83d"', '"\x00"', "[" * 2_000]),
)
_ANSWER = st.lists(st.tuples(st.sampled_from(["answer_id", "pm_score", "selected", "text"]), VALUES), max_size=5)
_ANSWERS = st.lists(_ANSWER.map(_object) | VALUES, max_size=4).map(_list) | VALUES
_ROW = st.lists(st.tuples(st.sampled_from([*KEYS, *ODD_KEYS]), VALUES), max_size=8)
_QUESTION = st.tuples(VALUES, _ANSWERS).map(lambda pair: list(zip(("question", "answers"), pair, strict=True)))
# Lines of JSON lines: mostly objects.
LINES = st.one_of(_ROW.map(_object), _ROW.map(_object), _QUESTION.map(_object), VALUES).map(str.encode)

_DAY = datetime.date(2026, 1, 1)
_INSIDE = pa.struct(
    [("answer_id", pa.int64()), ("pm_score", pa.float32()), ("selected", pa.bool_()), ("text", pa.string())]
)
# An Arrow type and values that it can hold; columns draw among the values, and nulls.
ARROW: tuple[tuple[pa.DataType, list[Any]], ...] = (
    (pa.null(), [None]),
    (pa.bool_(), [True, False]),
    (pa.int8(), [-1, 7]),
    (pa.uint64(), [2**64 - 1]),
    (pa.float16(), [1.5]),
    (pa.float64(), [float("nan"), float("inf"), 0.1]),
    (pa.decimal128(38, 2), [Decimal("12.30")]),
    (pa.decimal256(70, 0), [Decimal(10**60)]),
    (pa.date32(), [_DAY]),
    (pa.date64(), [_DAY]),
    (pa.time64("us"), [datetime.time(1, 2)]),
    (pa.timestamp("ns", "Europe/Berlin"), [datetime.datetime(2026, 1, 1)]),
    (pa.timestamp("s"), [2**40, -(2**40)]),
    (pa.duration("us"), [datetime.timedelta(days=3)]),
    (pa.binary(), [b"ok", b"\xff\xfe"]),
    (pa.large_binary(), [b"ok", b"\x80"]),
    (pa.binary(4), [b"abcd", b"\xff\xff\xff\xff"]),
    (pa.string(), ["x = 1\n", "", "a\\b.py"]),
    (pa.large_string(), ["y = 1\n", "é"]),
    (pa.string_view(), ["z = 1\n"]),
    (pa.dictionary(pa.int32(), pa.string()), ["MIT", "GPL"]),
    (pa.dictionary(pa.int8(), pa.int64()), [5]),
    (pa.list_(pa.string()), [["a", None], []]),
    (pa.large_list(pa.int64()), [[1, 2]]),
    (pa.list_(pa.float32(), 2), [[1.0, 2.0]]),
    (pa.struct([("url", pa.string()), ("text", pa.list_(pa.int8()))]), [{"url": "https://x.org", "text": [1]}, {}]),
    (pa.map_(pa.string(), pa.int32()), [[("a", 1)]]),
    (pa.list_(_INSIDE), [[{"answer_id": 1, "pm_score": 2.0, "selected": True, "text": "yes"}, None], [{}], []]),
    (pa.list_(pa.binary()), [[b"\xff"], [b"ok"]]),
    (pa.list_(pa.list_(pa.list_(pa.bool_()))), [[[[True]]]]),
)
NUM_ROWS = 6


@st.composite
def columns(draw: st.DrawFn, names: Sequence[str] = (*KEYS, *ODD_KEYS[:-1])) -> dict[str, pa.Array]:
    """Columns of NUM_ROWS rows, of any type each, with some of the names."""
    found = {}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=7, unique=True)):
        kind, values = draw(st.sampled_from(ARROW))
        nulls = [] if pa.types.is_fixed_size_list(kind) else [None]  # which pyarrow writes and cannot read
        drawn = draw(st.lists(st.sampled_from([*nulls, *values]), min_size=NUM_ROWS, max_size=NUM_ROWS))
        found[name] = pa.array(drawn, kind)
    return found
