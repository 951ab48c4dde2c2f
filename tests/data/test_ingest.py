"""Ingest takes the same documents whatever the order, counts what it leaves, and says so when there is nothing."""

import hashlib
import itertools
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import artifact
from components.core.errors import DataError
from components.data.config import IngestConfig
from components.data.documents import SCHEMA, ShardWriter, cut, document_id
from components.data.ingest import choose, run
from components.data.sources import python_environment
from tests.data.conftest import read_parts

TEXTS = st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=30)


def subset(texts: list[str], max_bytes: int, seed: int = 0) -> set[str]:
    ids = pl.Series([document_id(text) for text in texts], dtype=pl.String)
    sizes = pl.Series([len(text.encode()) for text in texts], dtype=pl.Int64)
    chosen = choose(ids, sizes, max_bytes=max_bytes, seed=seed)
    return {text for text, take in zip(texts, chosen, strict=True) if take}


@given(TEXTS, st.integers(1, 400), st.randoms())
def test_the_subset_does_not_depend_on_the_order_and_fits(texts: list[str], max_bytes: int, random: object) -> None:
    shuffled = sorted(texts, key=lambda _: random.random())  # type: ignore[attr-defined]
    found = subset(texts, max_bytes)
    assert found == subset(shuffled, max_bytes)
    assert sum(len(text.encode()) for text in texts if text in found) <= max_bytes


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=30, unique=True), st.integers(1, 200))
def test_a_larger_subset_holds_the_smaller(texts: list[str], max_bytes: int) -> None:
    assert subset(texts, max_bytes) <= subset(texts, max_bytes + 100)


@given(TEXTS, st.integers(1, 400), st.integers(0, 3))
def test_the_subset_is_taken_in_the_order_of_the_hashes(texts: list[str], max_bytes: int, seed: int) -> None:
    """The rule done plainly: whole groups of equal texts, by hash, until one does not fit."""
    wanted, total = set(), 0
    for text in sorted(set(texts), key=lambda each: hashlib.sha256(f"{seed}:{document_id(each)}".encode()).hexdigest()):
        total += len(text.encode()) * texts.count(text)
        if total > max_bytes:
            break
        wanted.add(text)
    assert subset(texts, max_bytes, seed) == wanted


def test_another_seed_gives_another_subset() -> None:
    texts = [f"text {number}" for number in range(200)]
    assert subset(texts, 500, seed=0) != subset(texts, 500, seed=1)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 100))
def test_cuts_cover_every_row_once_and_only_the_last_is_small(sizes: list[int], limit: int) -> None:
    slices = cut(pl.Series(sizes, dtype=pl.Int64), limit)
    assert [row for piece in slices for row in range(len(sizes))[piece]] == list(range(len(sizes)))
    assert all(sum(sizes[piece]) >= limit for piece in slices[:-1])


def rows(sizes: list[int]) -> pl.DataFrame:
    columns = {name: [str(number) for number in range(len(sizes))] for name in SCHEMA if name != "bytes"}
    return pl.DataFrame({**columns, "bytes": sizes}, schema=SCHEMA)


@given(st.lists(st.integers(0, 9_000_000), max_size=25), st.lists(st.integers(0, 25), max_size=4))
def test_shards_depend_on_the_rows_and_not_on_how_they_arrive(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cuts: list[int]
) -> None:
    digests = []
    for limits in ([], sorted(cuts)):
        directory = tmp_path_factory.mktemp("shards")
        writer = ShardWriter(directory, SCHEMA, 20_000_000)
        edges = [0, *(min(limit, len(sizes)) for limit in limits), len(sizes)]
        for start, stop in itertools.pairwise(edges):
            writer.write(rows(sizes)[start:stop])
        writer.close()
        assert read_parts(directory).equals(rows(sizes))
        assert sum(writer.rows.values()) == len(sizes) and writer.total_bytes == sum(sizes)
        digests.append({path.name: artifact.sha256_of(path) for path in directory.iterdir()})
    assert digests[0] == digests[1]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    root = tmp_path / "sources"
    for name, content in {
        "b.py": b"print('b')\n",
        "package/a.py": "größe = 1\n".encode(),
        "empty.py": b"\n \n",
        "latin.py": b"# gr\xfc\xdfe\n",
        "data.bin": b"\x00",
        ".hidden/c.py": b"print('c')\n",
        "huge.py": b"#" * 20_000,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_directory_becomes_documents_and_reasons(sources: Path, tmp_path: Path) -> None:
    (sources / "gone.py").symlink_to(tmp_path / "nothing")
    config = IngestConfig(source="directory", paths=(str(sources),), max_document_bytes=10_000)
    manifest = run(config, out=tmp_path / "raw")
    found = read_parts(tmp_path / "raw")
    assert found.schema == SCHEMA
    assert dict(zip(found["path"], found["text"], strict=True)) == {
        "b.py": "print('b')\n",
        "package/a.py": "größe = 1\n",
    }
    assert found["id"].to_list() == sorted(document_id(text) for text in found["text"])
    assert found["bytes"].to_list() == [len(text.encode()) for text in found["text"]]
    assert set(found["licence"]) == {config.licence}
    assert manifest.statistics["left_by_reason"] == {
        "empty": 1,
        "hidden": 1,
        "not_utf8": 1,
        "too_large": 1,
        "unknown_language": 1,
    }


def test_an_unreadable_file_is_counted(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the file system: the reader is another user's, or, for root, the read itself is made to fail."""
    read_bytes = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self.name == "b.py":
            raise PermissionError(13, "Permission denied", str(self))
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    manifest = run(IngestConfig(source="directory", paths=(str(sources),)), out=tmp_path / "raw")
    assert manifest.statistics["left_by_reason"]["unreadable"] == 1
    assert "b.py" not in read_parts(tmp_path / "raw")["path"].to_list()


def test_equal_directories_in_other_places_give_equal_digests(sources: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in sorted(sources.rglob("*.py"), reverse=True):
        (copy / path.relative_to(sources)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / path.relative_to(sources))
    files = []
    for number, root in enumerate((sources, copy)):
        manifest = run(IngestConfig(source="directory", paths=(str(root),)), out=tmp_path / str(number))
        files.append(manifest.files)
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.mkdir(), r"^source directory \(.*\) is empty: .*no files at all"),
        (lambda root: (root.mkdir(), (root / "a.py").write_text(" ")), r"is empty: .*left: 1 empty"),
        (lambda root: None, "found nothing, needed a directory; correct ingest.paths"),
        (lambda root: root.write_text("x"), "found a file, needed a directory"),
    ],
)
def test_an_empty_source_is_one_clear_line(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "root")  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as error:
        run(IngestConfig(source="directory", paths=(str(tmp_path / "root"),)), out=tmp_path / "raw")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "raw").exists()


def test_a_limit_below_every_document_says_which(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no document fits ingest\.max_bytes 3; the smallest has 11 bytes"):
        run(IngestConfig(source="directory", paths=(str(sources),), max_bytes=3), out=tmp_path / "raw")


def test_parquet_keeps_bad_rows_for_the_check_and_computes_ids(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "text": ["print(1)", None, "x\0y"],
            "id": ["forged", "forged", "forged"],
            "path": ["a.py", "b.js", None],
            "licence": ["MIT", None, "GPL-3.0-only"],
        }
    )
    table.write_parquet(tmp_path / "table.parquet")
    config = IngestConfig(source="parquet", paths=(str(tmp_path),), licence="Apache-2.0")
    manifest = run(config, out=tmp_path / "raw")
    found = {row["path"]: row for row in read_parts(tmp_path / "raw").iter_rows(named=True)}
    assert set(found) == {"a.py", "b.js"}
    assert found["a.py"]["id"] == document_id("print(1)") and found["a.py"]["licence"] == "MIT"
    assert found["b.js"]["text"] is None and found["b.js"]["licence"] == "Apache-2.0"
    assert [found[path]["language"] for path in ("a.py", "b.js")] == ["python", "javascript"]
    assert manifest.statistics["left_by_reason"] == {"licence": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not parquet", "cannot be read as Parquet"), (None, "column text is absent, needed text; columns found: body")],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "table.parquet"
    if content is None:
        pl.DataFrame({"body": ["x"]}).write_parquet(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"table\.parquet: {message}") as error:
        run(IngestConfig(source="parquet", paths=(str(path),)), out=tmp_path / "raw")
    assert "\n" not in str(error.value)


def distribution(site: Path, name: str, files: dict[str, str], metadata: str, generated: str) -> None:
    """A distribution as an installer leaves it in a site-packages directory."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}\n\nReadme\n")
    for path, content in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(content)
    script = site.parent / "bin" / f"{name}.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!{generated}/bin/python\n")
    record = [*files, f"../bin/{name}.py", f"{name}-1.0.dist-info/METADATA", f"{name}-1.0.dist-info/direct_url.json"]
    (info / "direct_url.json").write_text(generated)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in record))


def environment(root: Path, monkeypatch: pytest.MonkeyPatch, *, backwards: bool) -> None:
    """A small Python environment that the source takes for the running one."""
    site = root / "site-packages"
    distributions = [
        (
            "Good_One",
            {"good/__init__.py": "x = 1\n", "good/deep/a.py": "a = 2\n", "shared.py": "s = 1\n"},
            "License: MIT",
        ),
        ("alias", {"good/__init__.py": "x = 1\n"}, "License-Expression: Apache-2.0"),
        ("copyleft", {"gpl/__init__.py": "g = 3\n", "shared.py": "s = 1\n"}, "License: GPLv3"),
        ("unknown", {"unknown.py": "u = 4\n"}, "Summary: says nothing"),
        ("overnight", {"__editable___overnight_finder.py": str(root), "own.py": "o = 1\n"}, "License: Apache-2.0"),
    ]
    for name, files, metadata in reversed(distributions) if backwards else distributions:
        ordered = dict(reversed(files.items())) if backwards else files
        distribution(site, name, ordered, metadata, str(root))
    (site / "good" / "__pycache__").mkdir()
    (site / "good" / "__pycache__" / "a.py").write_text(str(root))
    library = root / "library"
    for path in ("json/decoder.py", "test/test_json.py", "site-packages/x.py", "_sysconfigdata_linux.py"):
        (library / path).parent.mkdir(parents=True, exist_ok=True)
        (library / path).write_text(f"# {path}\n")
    places = {"stdlib": str(library), "purelib": str(site), "platlib": str(site)}
    monkeypatch.setattr(sysconfig, "get_path", places.__getitem__)


def test_equal_environments_give_equal_digests_and_no_path_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for number in range(2):
        root = tmp_path / f"environment-{number}"
        environment(root, monkeypatch, backwards=bool(number))
        manifest = run(IngestConfig(), out=tmp_path / f"raw-{number}")
        found = read_parts(tmp_path / f"raw-{number}")
        assert {row["path"]: (row["package"], row["licence"]) for row in found.iter_rows(named=True)} == {
            "json/decoder.py": ("python", "PSF-2.0"),
            "good/__init__.py": ("alias", "Apache-2.0"),
            "good/deep/a.py": ("good-one", "MIT"),
        }
        assert manifest.statistics["left_by_reason"] == {"copyleft": 2, "unknown_licence": 1}
        assert not any(str(tmp_path) in str(row) for row in found.iter_rows())
        digests.append(manifest.digest)
    assert digests[0] == digests[1]


def test_the_running_environment_has_a_library_and_distributions() -> None:
    found = python_environment.find(IngestConfig())
    packages = {file.package for file in found.files}
    assert {"python", "polars"} <= packages and "overnight" not in packages
    assert all(file.location.suffix == ".py" and not file.path.startswith(("/", "..")) for file in found.files)


def test_the_command_ends_with_two_for_an_empty_source(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    params = tmp_path / "params.yaml"
    params.write_text(f"ingest:\n  source: directory\n  paths: [{tmp_path / 'nothing'}]\n")
    command = [sys.executable, "-m", "components.data.ingest", "--params", str(params), "--out", str(tmp_path / "raw")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ingest: source directory") and done.stderr.count("\n") == 1
