"""Bad input through the real stages, from the sources over ingest to check_raw: what comes out, and under which name.

Every drill says what it puts in, and what must become of it: left by ingest (reason), quarantined by check_raw (rule),
or in data/checked as it should be. All of them go through one ingest and one check together, so none may stop another,
and the good document beside each must come through.
"""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import DataError
from components.core.graph.closure import ROOT
from components.data import ingest
from components.data.check import check_raw
from components.data.config import CheckRawConfig, IngestConfig
from components.data.intake import intake
from components.data.sources.config import DirectorySource, JsonlSource, ParquetSource
from components.data.sources.reading.document_batch import Batch
from tests.data.conftest import read_parts

GOOD = "def good():\n    return 1\n"
MIT_TEXT = """MIT License

Copyright (c) 2024 Ann

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software.
"""
Source = DirectorySource | JsonlSource | ParquetSource


@dataclass
class Place:
    """Where a drill puts its input: files below one folder, lines and tables beside it."""

    name: str
    folder: Path
    sources: list[Source] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "files").mkdir(parents=True)
        (self.folder / "files" / "good.py").write_text(GOOD)
        self.sources.append(DirectorySource(name=self.name, path=str(self.folder / "files")))

    def file(self, name: str, content: bytes) -> None:
        (self.folder / "files" / name).write_bytes(content)

    def lines(self, *rows: bytes, licence: str | None = "MIT") -> None:
        path = self.folder / "rows.jsonl"
        path.write_bytes(b"".join(row + b"\n" for row in rows))
        self.sources.append(JsonlSource(name=f"{self.name}.jsonl", paths=(str(path),), licence=licence))

    def tables(self, **tables: pa.Table) -> None:
        (self.folder / "tables").mkdir()
        for name, table in tables.items():
            pq.write_table(table, self.folder / "tables" / f"{name}.parquet")
        paths = (str(self.folder / "tables"),)
        self.sources.append(ParquetSource(name=f"{self.name}.parquet", paths=paths, licence="MIT"))


@dataclass(frozen=True)
class Expected:
    """What becomes of each path: its reason in left.parquet, its rules in quarantine.parquet, or its text."""

    left: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, set[str]] = field(default_factory=dict)
    checked: dict[str, str] = field(default_factory=dict)


DRILLS: dict[str, Callable[[Place], Expected]] = {}


def drill(put: Callable[[Place], Expected]) -> Callable[[Place], Expected]:
    """Register a function that puts bad input into a place and says what must become of it."""
    DRILLS[put.__name__] = put
    return put


def raw_strings(*values: bytes) -> pa.Array:
    """A column of type string whose bytes nobody checked."""
    column = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(column), column.buffers())


def line(**columns: Any) -> bytes:
    return json.dumps(columns).encode()


@drill
def nul_characters(place: Place) -> Expected:
    place.file("file.py", b"x = '\0'\n")
    place.lines(b'{"text": "x = 1\\u0000", "path": "line.py"}')
    place.tables(rows=pa.table({"text": ["x = 2\0"], "path": ["row.py"]}))
    return Expected(quarantined={path: {"nul_characters"} for path in ("file.py", "line.py", "row.py")})


@drill
def invalid_utf8(place: Place) -> Expected:
    place.file("file.py", b"x = '\xff'\n")
    place.file("utf16.py", "x = 1\n".encode("utf-16"))
    place.lines(b'{"text": "x = \xff"}', b'{"text": "fine", "path": "line.py"}')
    place.tables(
        strings=pa.table({"text": raw_strings(b"x = \xfe", b"y = 1"), "path": ["row.py", "fine.py"]}),
        binary=pa.table({"text": pa.array([b"x = \xfe", b"z = 1"]), "path": ["bytes.py", "fine_bytes.py"]}),
    )
    reasons = dict.fromkeys(("file.py", "rows.jsonl:1", "row.py", "bytes.py"), "not_utf8")
    return Expected(
        left={**reasons, "utf16.py": "binary"},
        checked={"line.py": "fine", "fine.py": "y = 1", "fine_bytes.py": "z = 1"},
    )


@drill
def lone_surrogates(place: Place) -> Expected:
    """As escapes in JSON, in a text and in a path; as bytes in a table; in the name of a file."""
    place.lines(
        b'{"text": "x = \\ud800", "path": "a.py"}',
        b'{"text": "x = 1", "path": "\\udc00.py"}',
        b'{"text": "x = \\ud83d\\ude00", "path": "pair.py"}',
    )
    place.tables(rows=pa.table({"text": raw_strings(b"x = \xed\xa0\x80"), "path": ["row.py"]}))
    Path(os.fsdecode(os.fsencode(place.folder) + b"/files/name\xff.py")).write_text("x = 1\n")
    reasons = dict.fromkeys(("rows.jsonl:1", "rows.jsonl:2", "row.py"), "not_utf8")
    return Expected(left={**reasons, "name\\xff.py": "path_not_utf8"}, checked={"pair.py": "x = 😀"})


@drill
def damaged_text(place: Place) -> Expected:
    """What a wrong codec made of a text, and what only a machine would write on one line."""
    place.file("file.py", "# gr\ufffdn \ufffdber\n".encode())
    place.file("line.py", b"x = '" + b"a" * 200_000 + b"'\n")
    return Expected(quarantined={"file.py": {"decoding_damage"}, "line.py": {"line_too_long"}})


@drill
def empty_texts(place: Place) -> Expected:
    place.file("file.py", b"")
    place.file("space.py", b" \n\t\n")
    place.lines(line(text="", path="line.py"), line(text=None, path="null.py"), line(path="none.py"), b"", b"[]", b"{")
    place.tables(rows=pa.table({"text": ["", None], "path": ["row.py", "null_row.py"]}))
    return Expected(
        left={
            **dict.fromkeys(("file.py", "space.py", "line.py", "row.py"), "empty"),
            **dict.fromkeys(("null.py", "null_row.py"), "no_text"),
            **{"rows.jsonl:3": "no_column", "rows.jsonl:5": "malformed", "rows.jsonl:6": "malformed"},
        }
    )


@drill
def duplicate_and_forged_ids(place: Place) -> Expected:
    """A row that is there twice is quarantined; its text elsewhere is for clean; a stated id is not read."""
    place.file("copy.py", b"x = 'twice'\n")
    row = line(text="x = 'twice'\n", path="a.py", id="forged")
    place.lines(row, row, line(text="x = 'once'", path="b.py", id="forged"))
    return Expected(quarantined={"a.py": {"row_repeated"}}, checked={"copy.py": "x = 'twice'\n", "b.py": "x = 'once'"})


@drill
def schema_drift(place: Place) -> Expected:
    """Files of one folder: another type, a column that is missing, one that is new, texts of another kind."""
    place.tables(
        t0=pa.table({"text": ["x = 0"], "stars": [1]}),
        t1=pa.table({"text": [1], "stars": ["many"]}),
        t2=pa.table({"body": ["x = 2"]}),
        t3=pa.table({"text": ["x = 3"], "stars": [[1, 2]], "more": [{"a": 1}]}),
        t4=pa.table({"text": pa.array(["x = 4"]).dictionary_encode(), "path": [4]}),
        t5=pa.table({"text": pa.array([b"x = 5"], pa.large_binary())}),
    )
    place.lines(line(text="x = 6", path="6"), line(text=7, path="7"), line(body="x = 8"), line(text="x = 9", path=[9]))
    return Expected(
        left={
            "t1.parquet": "wrong_type",
            "t2.parquet": "no_column",
            "rows.jsonl:2": "wrong_type",
            "rows.jsonl:3": "no_column",
        },
        checked={"t0.parquet:0": "x = 0", "t3.parquet:0": "x = 3", "4": "x = 4", "t5.parquet:0": "x = 5"}
        | {"6": "x = 6", "9": "x = 9"},
    )


CLIMBING = ("../../etc/passwd", "a/../../b.py", "..", "C:\\x.py", "..\\x.py", "a\x1b[2Jb.py", "a\nb.py")


@drill
def paths_that_climb(place: Place) -> Expected:
    """A path is a label: one that climbs, or hides characters, is left; an absolute one loses its slash."""
    place.lines(*(line(text="x = 1", path=path) for path in CLIMBING), line(text="x = 2", path="/etc/a.py"))
    shown = [path.replace("\x1b", "\ufffd").replace("\n", "\ufffd") for path in CLIMBING]
    return Expected(left=dict.fromkeys(shown, "unsafe_path"), checked={"etc/a.py": "x = 2"})


LICENCES: dict[str, tuple[str | None, str | None]] = {
    "null": (None, "no_licence"),
    "empty": ("", "no_licence"),
    "unknown": ("UNKNOWN", "no_licence"),
    "proprietary": ("Proprietary", "unknown_licence"),
    "gpl": ("GPL-3.0-only", "copyleft"),
    "long": ("x" * 200_000, "unknown_licence"),
    "mit_text": (MIT_TEXT * 20, None),
    "gpl_text": ("GNU GENERAL PUBLIC LICENSE\nVersion 3\n" + "terms\n" * 5_000, "copyleft"),
}


@drill
def licences(place: Place) -> Expected:
    """Absent, unknown, not let in, or a whole text in the place of a name."""
    rows = [line(text=f"x = '{name}'", path=name, licence=declared) for name, (declared, _) in LICENCES.items()]
    place.lines(*rows, licence=None)
    reasons = {name: reason for name, (_, reason) in LICENCES.items() if reason}
    return Expected(left=reasons, checked={"mit_text": "x = 'mit_text'"})


@drill
def links(place: Place) -> Expected:
    """Out of the folder, to a file and to a directory; in a circle; to a neighbour."""
    files = place.folder / "files"
    (place.folder / "secret.py").write_text("password = 'x'\n")
    (files / "out.py").symlink_to(place.folder / "secret.py")
    (files / "up").symlink_to(place.folder)
    (files / "circle.py").symlink_to(files / "circle.py")
    (files / "twin.py").symlink_to(files / "good.py")
    outside = dict.fromkeys(("out.py", "up"), "link_outside")
    return Expected(left={**outside, "circle.py": "link_broken", "twin.py": "link"})


@drill
def many_tiny_files(place: Place) -> Expected:
    for number in range(5_000):
        place.file(f"{number}.py", b"x = %d\n" % number)
    return Expected(checked={f"{number}.py": f"x = {number}\n" for number in range(5_000)})


@pytest.fixture(scope="module")
def came_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Expected, Expected]]:
    """For each drill what was expected and what came out, after one ingest and one check of all of them together."""
    root = tmp_path_factory.mktemp("drills")
    places = {name: Place(name, root / "in" / name) for name in DRILLS}
    expected = {name: put(places[name]) for name, put in DRILLS.items()}
    before = set(root.parent.rglob("*"))
    sources = tuple(source for place in places.values() for source in place.sources)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(root / "state"))
        ingest.run(IngestConfig(sources=sources), out=root / "raw")
        config = CheckRawConfig(max_quarantined_share=1.0, languages=("python", "unknown"))
        check_raw(config, source=root / "raw", out=root / "checked")
    outside = {path for path in set(root.parent.rglob("*")) - before if not path.is_relative_to(root)}
    assert not outside, "nothing was written where a path of the data points"
    left = pl.read_parquet(root / "raw" / "left.parquet")
    assert left["detail"].str.len_chars().max() <= 200 and not left["detail"].str.contains("\n").any()  # type: ignore[operator]
    quarantine = pl.read_parquet(root / "checked" / "quarantine.parquet")
    checked = read_parts(root / "checked")
    assert set(checked.filter(pl.col("path") == "mit_text")["licence"]) == {"MIT"}
    assert "forged" not in checked["id"]
    return {name: (expected[name], outcome(name, left, quarantine, checked)) for name in DRILLS}


def outcome(name: str, left: pl.DataFrame, quarantine: pl.DataFrame, checked: pl.DataFrame) -> Expected:
    """What came out of one drill's sources, the good document taken off."""
    mine = pl.col("source").is_in([name, f"{name}.jsonl", f"{name}.parquet"])
    rules: dict[str, set[str]] = {}
    for path, rule in quarantine.filter(mine).select("path", "rule").iter_rows():
        rules.setdefault(path, set()).add(rule)
    texts = dict(checked.filter(mine).select("path", "text").iter_rows())
    assert texts.pop("good.py") == GOOD
    return Expected(dict(left.filter(mine).select("path", "reason").iter_rows()), rules, texts)


@pytest.mark.parametrize("name", DRILLS)
def test_bad_documents(came_out: dict[str, tuple[Expected, Expected]], name: str) -> None:
    expected, found = came_out[name]
    assert found == expected


LINES = (("sparse", ""), ("bomb", ".gz"), ("bomb", ".zst"))
MEASURED = """
import resource, sys
from pathlib import Path
from components.data import ingest
from components.data.config import IngestConfig
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
config = IngestConfig.model_validate_json(Path(sys.argv[1]).read_text())
ingest.run(config, out=Path(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def grown_mb(tmp_path: Path, *sources: Source) -> int:
    """By how many megabytes a process of its own grew while it took sources in."""
    (tmp_path / "config.json").write_text(IngestConfig(sources=sources).model_dump_json())
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "config.json"), str(tmp_path / "measured")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_large_lines_and_bombs_are_left_in_bounded_memory(tmp_path: Path) -> None:
    """A line of 100 MB, plain and compressed; kilobytes of Parquet that stand for gigabytes, or millions of rows."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "good.py").write_text(GOOD)
    with (inbox / "sparse.jsonl").open("wb") as sparse:
        sparse.write(b'{"text": "fine", "path": "before.py"}\n')
        sparse.truncate(100_000_000)
    with (inbox / "sparse.py").open("wb") as sparse:
        sparse.truncate(100_000_000)
    for name, compression in (("bomb.jsonl.gz", "gzip"), ("bomb.jsonl.zst", "zstd")):
        with pa.output_stream(str(inbox / name), compression=compression) as target:
            target.write(b'{"text": "')
            for _ in range(100):
                target.write(b"x" * 1_000_000)
    texts = pa.array(["x" * 2_000_000, "y"])
    for name, indices in (("large.parquet", [0] * 1_500 + [1]), ("rows.parquet", [1] * 2_000_000)):
        column = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), texts)
        # Without its Arrow schema the file says nothing of a dictionary, and would be read as plain strings.
        pq.write_table(pa.table({"text": column}), inbox / name, compression="zstd", store_schema=False)
    assert sum(path.stat().st_size for path in inbox.iterdir() if "sparse" not in path.name) < 200_000
    grown = grown_mb(
        tmp_path,
        DirectorySource(path=str(inbox)),
        JsonlSource(paths=tuple(str(inbox / f"{name}.jsonl{suffix}") for name, suffix in LINES), licence="MIT"),
        ParquetSource(paths=(str(inbox),), licence="MIT", max_document_bytes=1_000_000),
    )
    assert grown < 300
    left = pl.read_parquet(tmp_path / "measured" / "left.parquet").filter(pl.col("reason") != "unknown_language")
    reasons = dict(left.select("path", "reason").iter_rows())
    large = {path for path in reasons if path.startswith("large.parquet:")}
    assert large == {f"large.parquet:{row}" for row in range(1_500)}
    assert {reasons.pop(path) for path in large} == {"too_large"}
    assert reasons == {
        "sparse.py": "too_large",
        "sparse.jsonl:2": "too_large",
        "bomb.jsonl.gz": "zip_bomb",
        "bomb.jsonl.zst": "zip_bomb",
        "rows.parquet": "zip_bomb",
    }
    assert set(read_parts(tmp_path / "measured")["text"]) == {GOOD, "fine", "y"}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_source_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Written to after its first batch was taken: what had come in stays, nothing of what came after is trusted."""
    place = Place("drill", tmp_path / "in")
    texts = [f"x = {number}\n" for number in range(9_000)]
    if kind == "jsonl":
        place.lines(*(line(text=text) for text in texts))
    else:
        place.tables(rows=pa.table({"text": texts}))
    location = tmp_path / "in" / ("rows.jsonl" if kind == "jsonl" else "tables/rows.parquet")
    take, seen = intake.Intake.take, []

    def take_then_change(self: intake.Intake, number: int, batch: Batch) -> None:
        take(self, number, batch)
        if number == 1 and not seen:
            seen.append(batch.documents.height)
            with location.open("ab") as target:
                target.write(b'{"text": "late"}\n')

    monkeypatch.setattr(intake.Intake, "take", take_then_change)
    ingest.run(IngestConfig(sources=tuple(place.sources)), out=tmp_path / "raw")
    assert pl.read_parquet(tmp_path / "raw" / "left.parquet")["reason"].to_list() == ["changed"]
    found = set(read_parts(tmp_path / "raw")["text"])
    assert found - {GOOD} == set(texts[: seen[0]]) and seen[0] < 9_000


PAYLOADS = """
import sys
sys.path.insert(0, {root!r})
import pyarrow as pa
class Eager(pa.ExtensionType):
    def __init__(self):
        super().__init__(pa.string(), "drill.eager")
    def __arrow_ext_serialize__(self):
        return b""
    @classmethod
    def __arrow_ext_deserialize__(cls, storage, serialized):
        open({flag!r}, "w").write("type")
        return cls()
pa.register_extension_type(Eager())
from pathlib import Path
from components.data import ingest
from components.data.config import IngestConfig
from components.data.sources.config import *
folder = Path({folder!r})
ingest.run(IngestConfig(sources=(ParquetSource(paths=(str(folder),), licence="MIT"),)), out=Path({out!r}))
"""


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"echo pickle > {self.flag}",)


def test_extension_types_and_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    """Where a type is registered that runs code when Arrow reads a schema with it; a pickle beside any schema."""
    folder, flag = tmp_path / "tables", tmp_path / "ran"
    folder.mkdir()
    evil = pickle.dumps(Payload(flag))
    types = {
        "eager": {"ARROW:extension:name": "drill.eager", "ARROW:extension:metadata": b"x"},
        "ray_object": {"ARROW:extension:name": "ray.data.arrow_pickled_object", "ARROW:extension:metadata": evil},
        "python": {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": evil},
    }
    for name, metadata in types.items():
        field = pa.field("evil", pa.binary() if name != "eager" else pa.string(), metadata=metadata)
        column = pa.array([evil] if name != "eager" else ["x"], field.type)
        schema = pa.schema([pa.field("text", pa.string()), field])
        pq.write_table(pa.Table.from_arrays([pa.array(["x = 1"]), column], schema=schema), folder / f"{name}.parquet")
    schema = pa.schema([pa.field("text", pa.string()), pa.field("s", pa.struct([field]))])
    nested = pa.array([{"evil": evil}], schema.field("s").type)
    pq.write_table(pa.Table.from_arrays([pa.array(["x = 2"]), nested], schema=schema), folder / "nested.parquet")
    plain = pa.table({"text": ["x = 3"], "path": ["plain.py"]}).replace_schema_metadata({"pandas": evil, "any": evil})
    pq.write_table(plain, folder / "plain.parquet")
    script = PAYLOADS.format(root=str(ROOT), flag=str(flag), folder=str(folder), out=str(tmp_path / "raw"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not flag.exists(), flag.read_text()
    left = pl.read_parquet(tmp_path / "raw" / "left.parquet")
    refused = {f"{name}.parquet": "extension_type" for name in ("eager", "nested", "python", "ray_object")}
    assert dict(left.select("path", "reason").iter_rows()) == refused
    assert read_parts(tmp_path / "raw")["path"].to_list() == ["plain.py"]


def test_a_folder_of_nothing_but_bad_input_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.py").write_bytes(b"\xff")
    (tmp_path / "in" / "b.py").write_bytes(b"")
    with pytest.raises(DataError, match=r"found no usable document \(left: 1 empty, 1 not_utf8") as error:
        ingest.run(IngestConfig(sources=(DirectorySource(path=str(tmp_path / "in")),)), out=tmp_path / "raw")
    assert "\n" not in str(error.value) and not (tmp_path / "raw").exists()


def test_a_check_that_quarantines_too_much_stops_the_cycle(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.py").write_bytes(b"x = '%d\0'\n" % number if number < 3 else b"x = %d\n" % number)
    ingest.run(IngestConfig(sources=(DirectorySource(path=str(tmp_path)),)), out=tmp_path / "raw")
    with pytest.raises(DataError, match=r"3 of 10 documents fail .*nul_characters.* more than"):
        check_raw(CheckRawConfig(), source=tmp_path / "raw", out=tmp_path / "checked")
    assert not (tmp_path / "checked").exists()
