"""Tables as sources: shapes of published data sets, and what is bad in a table is left with its reason."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import DataError
from components.data.sources import jsonl, parquet
from components.data.sources.config import JsonlSource, ParquetSource

STACK = {
    "content": "int main(){}",
    "max_stars_repo_name": "o/r",
    "max_stars_repo_path": "src/a.c",
    "max_stars_repo_head_hexsha": "c0ffee",
    "max_stars_repo_licenses": ["MIT", "Apache-2.0", "MIT"],
    "lang": "C++",
    "size": 12,
}
STACK_2 = {"content": "x = 1", "repo_name": "o/r", "path": "/lib/b.py", "detected_licenses": [], "language": "Python"}
ANSWERS = [
    {"answer_id": 1, "pm_score": 3, "selected": False, "text": "third", "author": "a"},
    {"answer_id": 2, "pm_score": 9, "selected": False, "text": "second", "author": "b"},
    {"answer_id": 3, "pm_score": 0, "selected": True, "text": "first", "author": "c"},
]
QUESTION = {"qid": 7, "question": "how?", "answers": ANSWERS, "date": "2020/01/01", "metadata": ["https://x.org"]}
RED = {"text": "Q: how? A: so.", "meta": {"url": "https://x.org/q/7", "source": "x.org"}}


def read(tmp_path: Path, kind: str, **more: object) -> tuple[list[dict[str, Any]], dict[str, tuple[str, str]]]:
    """The documents in their order, and reason and detail of what was left by path."""
    values = {"paths": (str(tmp_path),), **more}
    if kind == "parquet":
        batches = list(parquet.read(ParquetSource.model_validate(values)))
    else:
        batches = list(jsonl.read(JsonlSource.model_validate(values)))
    rows = pl.concat([batch.documents for batch in batches])
    left = pl.concat([batch.left for batch in batches])
    return list(rows.iter_rows(named=True)), {row[0]: row[1:] for row in left.iter_rows()}


def write(tmp_path: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    if kind == "parquet":
        pl.DataFrame(rows).write_parquet(tmp_path / "table.parquet")
    else:
        (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("shape", "row", "wanted"),
    [
        ("the-stack", STACK, ("int main(){}", "src/a.c", "o/r", "c0ffee", "Apache-2.0 AND MIT", "cpp")),
        ("the-stack", STACK_2, ("x = 1", "lib/b.py", "o/r", "", "Zlib", "python")),
        ("stackexchange", QUESTION, ("how?\n\nfirst\n\nsecond\n\nthird", "7", "table", "2020/01/01", "Zlib", "text")),
        ("stackexchange", RED, ("Q: how? A: so.", "https://x.org/q/7", "x.org", "", "Zlib", "text")),
        ("plain", {"text": "a"}, ("a", "table.{kind}:{first}", "table", "", "Zlib", "unknown")),
        ("plain", {"text": "a", "path": "a.go", "licence": "MIT"}, ("a", "a.go", "table", "", "MIT", "go")),
    ],
)
def test_a_shape_says_which_column_is_which(
    tmp_path: Path, kind: str, shape: str, row: dict[str, Any], wanted: tuple[str, ...]
) -> None:
    write(tmp_path, kind, [row])
    found, left = read(tmp_path, kind, shape=shape, licence="Zlib")
    first = 0 if kind == "parquet" else 1
    told = tuple(found[0][name] for name in ("text", "path", "package", "version", "licence", "language"))
    assert told == tuple(each.replace("{kind}", kind).replace("{first}", str(first)) for each in wanted)
    assert len(found) == 1 and not left


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_config_names_columns_that_differ(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind, [{"code": "x", "text": "not this", "info": {"by": "Ann", "where": "a.rs"}}])
    columns = {"text": "code", "author": "info.by", "path": "info.where"}
    found, _ = read(tmp_path, kind, columns=columns, licence="MIT")
    assert (found[0]["text"], found[0]["author"], found[0]["language"]) == ("x", "Ann", "rust")
    found, left = read(tmp_path, kind, columns={"text": "absent"})
    assert not found and [each[0] for each in left.values()] == ["no_column"]
    assert "column absent is absent; columns found: code, info, text" in next(iter(left.values()))[1]


def table(tmp_path: Path, name: str, texts: list[Any], kind: pa.DataType | None = None) -> Path:
    column = pa.array(texts, kind)
    pq.write_table(pa.table({"text": column}), tmp_path / name, row_group_size=10, compression="none")
    return tmp_path / name


def test_a_bad_file_or_row_group_is_left_and_the_rest_goes_on(tmp_path: Path) -> None:
    table(tmp_path, "good.parquet", ["fine"])
    (tmp_path / "garbage.parquet").write_bytes(b"not parquet")
    whole = table(tmp_path, "cut.parquet", ["x" * 100] * 10).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    table(tmp_path, "number.parquet", [1, 2])
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "other.parquet")
    path = table(tmp_path, "groups.parquet", [f"{number:03}" * 40 for number in range(30)])
    spoilt = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    spoilt[start : start + 200] = b"\xff" * 200
    path.write_bytes(spoilt)
    found, left = read(tmp_path, "parquet", licence="MIT")
    assert [row["text"] for row in found] == ["fine", *(f"{each:03}" * 40 for each in [*range(10), *range(20, 30)])]
    assert {path: reason for path, (reason, _) in left.items()} == {
        "garbage.parquet": "corrupt_file",
        "cut.parquet": "corrupt_file",
        "number.parquet": "wrong_type",
        "other.parquet": "no_column",
        "groups.parquet#1": "corrupt_row_group",
    }
    assert left["groups.parquet#1"][1].startswith("rows 10 to 19: ")
    assert left["number.parquet"][1] == "column text is int64, needed text"
    assert left["other.parquet"][1] == "column text is absent, needed text; columns found: body"
    assert all("\n" not in detail for _, detail in left.values())


def test_text_that_is_not_utf8_is_left_by_row_whatever_the_type_says(tmp_path: Path) -> None:
    table(tmp_path, "bytes.parquet", [b"good", b"gr\xfc", None], pa.binary())
    lying = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe"))
    pq.write_table(pa.table({"text": lying}), tmp_path / "lying.parquet")
    found, left = read(tmp_path, "parquet", licence="MIT")
    assert [row["text"] for row in found] == ["good", None, "ok"]
    assert left == {"bytes.parquet:1": ("not_utf8", ""), "lying.parquet:1": ("not_utf8", "")}


class Surprise(pa.ExtensionType):
    """A type whose reading runs code of its own."""

    ran = False

    def __init__(self) -> None:
        super().__init__(pa.string(), "test.surprise")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> "Surprise":
        cls.ran = True
        return cls()


@pytest.mark.parametrize("nested", [False, True])
def test_extension_types_are_refused(tmp_path: Path, nested: bool) -> None:
    odd: pa.Array = pa.ExtensionArray.from_storage(Surprise(), pa.array(["x"]))
    if nested:
        odd = pa.StructArray.from_arrays([odd], ["inside"])
    pq.write_table(pa.table({"text": ["x"], "odd": odd}), tmp_path / "odd.parquet")
    found, left = read(tmp_path, "parquet", licence="MIT")
    assert not found and left["odd.parquet"][0] == "extension_type"
    pa.register_extension_type(Surprise())
    try:
        found, left = read(tmp_path, "parquet", licence="MIT")
    finally:
        pa.unregister_extension_type("test.surprise")
    assert not found and left["odd.parquet"][0] == "extension_type"
    assert not Surprise.ran


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_table_that_changes_is_left_from_there_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 10)
    monkeypatch.setattr(jsonl, "BATCH_ROWS", 10)
    write(tmp_path, kind, [{"text": f"{number}"} for number in range(100)])
    path = tmp_path / f"table.{kind}"
    os.utime(path, (1, 1))
    source = {"paths": (str(path),), "licence": "MIT"}
    batches = (
        parquet.read(ParquetSource.model_validate(source))
        if kind == "parquet"
        else jsonl.read(JsonlSource.model_validate(source))
    )
    assert next(batches).documents["text"].to_list() == [str(number) for number in range(10)]
    os.utime(path, (2, 2))
    rest = list(batches)
    assert not sum(batch.documents.height for batch in rest)
    assert pl.concat([batch.left for batch in rest])["reason"].to_list() == ["changed"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_bad_lines_are_left_by_their_number(tmp_path: Path, suffix: str) -> None:
    lines = [
        b'{"text": "one"}',
        b"",
        b"{broken",
        b'{"text": "\\ud800"}',
        b'{"text": "gr\xfc"}',
        b'["list"]',
        b'{"text": 5}',
        b'{"body": "x"}',
        b"[" * 100_000,
        b'{"text": "two", "path": "a\\ud83d\\ude00.py"}',
        b'{"text": "\xed\xa0\x80"}',
        b'{"text": null}',
        b'{"text": "' + b"x" * 2_000_000 + b'"}',
        '{"text": "größe"}'.encode(),
    ]
    content = b"\n".join(lines)
    path = tmp_path / f"rows.jsonl{suffix}"
    if suffix:
        with pa.output_stream(str(path), compression={".gz": "gzip", ".zst": "zstd"}[suffix]) as target:
            target.write(content)
    else:
        path.write_bytes(content)
    found, left = read(tmp_path, "jsonl", licence="MIT", max_document_bytes=10_000)
    assert [row["text"] for row in found] == ["one", "two", None, "größe"]
    assert found[1]["path"] == "a😀.py" and found[3]["path"] == f"rows.jsonl{suffix}:14"
    name = f"rows.jsonl{suffix}"
    assert {path: reason for path, (reason, _) in left.items()} == {
        f"{name}:3": "malformed",
        f"{name}:4": "not_utf8",
        f"{name}:5": "not_utf8",
        f"{name}:6": "malformed",
        f"{name}:7": "wrong_type",
        f"{name}:8": "no_column",
        f"{name}:9": "malformed",
        f"{name}:11": "not_utf8",
        f"{name}:13": "too_large",
    }
    assert all(len(detail) <= 200 and "\n" not in detail for _, detail in left.values())


def test_a_bomb_is_left_and_never_unpacked(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb", compresslevel=1) as bomb:
        bomb.write(b'{"text": "fine"}\n')
        for _ in range(200):
            bomb.write(b" " * 1_000_000)
    (tmp_path / "more.jsonl").write_text('{"text": "more"}\n')
    found, left = read(tmp_path, "jsonl", licence="MIT", max_decompressed_ratio=20.0)
    assert [row["text"] for row in found] == ["fine", "more"]
    reason, detail = left["bomb.jsonl.gz"]
    assert reason == "zip_bomb" and detail.endswith("allowed 20 times the size")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_file_that_is_cut_off_gives_what_came_before(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"rows.jsonl.{ {'gzip': 'gz', 'zstd': 'zst'}[compression] }"
    rows = b"".join(b'{"text": "%s"}\n' % os.urandom(50).hex().encode() for _ in range(20_000))
    with pa.output_stream(str(path), compression=compression) as target:
        target.write(rows)
    path.write_bytes(path.read_bytes()[:-10_000])
    found, left = read(tmp_path, "jsonl", licence="MIT")
    assert 0 < len(found) < 20_000 and all(len(row["text"]) == 100 for row in found)
    assert left[path.name][0] == "corrupt_file"


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_path_without_tables_is_one_line(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=r"ingest\.sources: .*: found no file that ends in \.(parquet|jsonl)"):
        read(tmp_path, kind)
