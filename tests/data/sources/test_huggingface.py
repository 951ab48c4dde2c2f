"""A data set comes in as its card says, file by file, at a stated version; nothing of it is run, nothing is fetched."""

import gzip
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import ConfigError, DataError
from components.data.config import IngestConfig
from components.data.ingest import run
from components.data.sources import huggingface
from components.data.sources.config import Columns, HuggingFaceSource
from components.data.sources.reading.document_batch import Batch
from tests.data.conftest import read_parts


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: a name of the Hub ends in an error of the library's own."""
    for module in ("datasets.config", "huggingface_hub.constants"):  # both read the environment when imported
        monkeypatch.setattr(sys.modules[module], "HF_HUB_OFFLINE", True)


def read(folder: Path, **parameters: Any) -> tuple[pl.DataFrame, dict[str, str]]:
    """The documents, and reasons by path of what was left."""
    batches: list[Batch] = list(huggingface.read(HuggingFaceSource(dataset=str(folder), **parameters)))
    left = pl.concat([batch.left for batch in batches])
    return pl.concat([batch.documents for batch in batches]), dict(left.select("path", "reason").iter_rows())


def table(file: Path, **columns: list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_parquet(file)


def lines(file: Path, *rows: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_parquet_comes_in_under_the_columns_of_the_config(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    table(folder / "data/train-00001.parquet", content=["c = 3"], path=["c.js"], license=["MIT"])
    table(folder / "data/train-00000.parquet", content=["a = 1", "b = 2"], path=["a.py", None], license=["MIT", None])
    table(folder / "data/test-00000.parquet", content=["t = 9"], path=["t.py"], license=["MIT"])
    found, left = read(folder, columns=Columns(text="content", licence="license"))
    assert left == {}
    assert found.select("text", "path", "licence", "language", "package").rows() == [
        ("a = 1", "a.py", "MIT", "python", "code"),
        ("b = 2", "data/train-00000.parquet:1", None, "unknown", "code"),
        ("c = 3", "c.js", "MIT", "javascript", "code"),
    ]
    assert read(folder, split="test", columns=Columns(text="content"))[0]["text"].to_list() == ["t = 9"]


def test_jsonl_csv_and_text_come_in(tmp_path: Path) -> None:
    lines(tmp_path / "j" / "train.jsonl", *({"text": f"x = {n}", "n": n} for n in range(2_500)))
    found, left = read(tmp_path / "j")
    assert found["text"].to_list() == [f"x = {n}" for n in range(2_500)] and left == {}
    assert found["path"][2_400] == "train.jsonl:2400"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train.csv").write_text('text,path\n"a = 1\nb = 2",a.py\n')
    assert read(tmp_path / "c")[0].select("text", "path").rows() == [("a = 1\nb = 2", "a.py")]
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.txt").write_text("one\ntwo\n")
    assert read(tmp_path / "t")[0]["text"].to_list() == ["one\ntwo\n"]


def test_the_version_of_a_folder_is_the_digest_of_what_was_read(tmp_path: Path) -> None:
    for name in ("one", "two", "other"):
        lines(tmp_path / name / "train.jsonl", {"text": "x = 1" if name != "other" else "x = 2"})
    one, two, other = (read(tmp_path / name)[0]["version"][0] for name in ("one", "two", "other"))
    assert one == two != other and len(one) == 64
    assert read(tmp_path / "one", version="v1")[0]["version"][0] == "v1"


def test_a_configuration_and_its_files_are_those_of_the_card(tmp_path: Path) -> None:
    lines(tmp_path / "d" / "python.jsonl", {"text": "p"})
    lines(tmp_path / "d" / "go.jsonl", {"text": "g"})
    card = (
        "---\nconfigs:\n- config_name: python\n  data_files: python.jsonl\n- config_name: go\n  data_files: go.jsonl\n"
    )
    (tmp_path / "d" / "README.md").write_text(card + "---\n")
    assert read(tmp_path / "d", config_name="go")[0]["text"].to_list() == ["g"]
    assert read(tmp_path / "d", config_name="python")[0]["text"].to_list() == ["p"]
    assert read(tmp_path / "d", data_files=("go*",))[0]["text"].to_list() == ["g"]


def test_a_card_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """Neither by a path, nor by a link in the folder."""
    (tmp_path / "secret.txt").write_text("a secret of this machine")
    lines(tmp_path / "d" / "ok.jsonl", {"text": "x"})
    for elsewhere in ("../secret.txt", f"{tmp_path}/secret.txt"):
        card = f"---\nconfigs:\n- config_name: a\n  data_files: {elsewhere}\n---\n"
        (tmp_path / "d" / "README.md").write_text(card)
        found, left = read(tmp_path / "d")
        assert found.is_empty() and set(left.values()) == {"unsafe_path"}
    (tmp_path / "d" / "README.md").unlink()
    (tmp_path / "d" / "ok.jsonl").unlink()
    (tmp_path / "d" / "train.txt").symlink_to(tmp_path / "secret.txt")
    found, left = read(tmp_path / "d")
    assert found.is_empty() and set(left.values()) == {"unsafe_path"}


def test_a_file_that_differs_or_is_damaged_is_left_and_the_others_are_not(tmp_path: Path) -> None:
    table(tmp_path / "d" / "train-0.parquet", text=["x = 0"])
    table(tmp_path / "d" / "train-1.parquet", text=[1], more=["y"])
    table(tmp_path / "d" / "train-2.parquet", body=["x"])
    (tmp_path / "d" / "train-3.parquet").write_bytes(b"PAR1 is not enough")
    table(tmp_path / "d" / "train-4.parquet", text=["x = 4"], more=[4])
    found, left = read(tmp_path / "d")
    assert found["text"].to_list() == ["x = 0", "x = 4"]
    assert left == {
        "train-1.parquet": "wrong_type",
        "train-2.parquet": "no_column",
        "train-3.parquet": "corrupt_file",
    }


def test_a_file_that_changes_while_it_is_read_is_left(tmp_path: Path) -> None:
    lines(tmp_path / "d" / "train.jsonl", *({"text": f"x = {n}"} for n in range(3_000)))
    batches = huggingface.read(HuggingFaceSource(dataset=str(tmp_path / "d")))
    first = next(batches)
    lines(tmp_path / "d" / "train.jsonl", {"text": "other"})
    rest = list(batches)
    assert first.documents.height == 1_000 and sum(batch.documents.height for batch in rest) == 0
    assert [batch.left["reason"].to_list() for batch in rest] == [["changed"]]


def test_archives_are_left(tmp_path: Path) -> None:
    """What it would grow to is not known before it has grown."""
    lines(tmp_path / "d" / "train-0.jsonl", {"text": "x = 0"})
    (tmp_path / "d" / "train-1.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x = 1"}\n'))
    with zipfile.ZipFile(tmp_path / "d" / "train-2.zip", "w") as archive:
        archive.writestr("train.jsonl", '{"text": "x = 2"}\n')
    found, left = read(tmp_path / "d")
    assert found["text"].to_list() == ["x = 0"]
    assert left == {"train-1.jsonl.gz": "compressed", "train-2.zip": "compressed"}


def test_an_extension_type_is_refused_before_arrow_sees_it(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"text": ["x"], "u": pa.array([b"a" * 16], pa.uuid())}), tmp_path / "d" / "train.parquet")
    found, left = read(tmp_path / "d")
    assert found.is_empty() and left == {"train.parquet": "extension_type"}


@pytest.mark.parametrize(
    ("make", "parameters", "error", "message"),
    [
        (
            None,
            {},
            ConfigError,
            "is no folder, so it is a data set of the Hub, and revision is absent; name the commit",
        ),
        (None, {"revision": "a" * 40}, DataError, "cannot be opened: .*on the Hub"),
        ("train.jsonl", {"split": "valid"}, DataError, "found the splits train, needed valid; correct split"),
        ("train.jsonl", {"config_name": "absent"}, DataError, "cannot be opened: .*absent"),
        ("train.py", {}, DataError, "cannot be opened: "),
        ("train.tar", {}, DataError, "its files are read as webdataset, needed parquet, json, csv or text"),
        ("train.pkl", {}, DataError, "cannot be opened: "),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: str | None,
    parameters: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if make is not None:
        (tmp_path / "team").mkdir()
        (tmp_path / "team" / make).write_text('{"text": "x"}\n')
    with pytest.raises(error, match=message) as raised:
        read(Path("team" if make else "team/code"), **parameters)
    assert "\n" not in str(raised.value)


def test_a_branch_is_no_revision() -> None:
    with pytest.raises(ValueError, match="revision"):
        HuggingFaceSource(dataset="team/code", revision="main")


def test_ingest_mixes_it_in_and_gives_the_same_digest_twice(tmp_path: Path) -> None:
    lines(tmp_path / "d" / "train.jsonl", *({"text": f"x = {n}", "path": f"{n}.py"} for n in range(50)))
    config = IngestConfig(sources=(HuggingFaceSource(dataset=str(tmp_path / "d"), licence="MIT"),))
    first, second = run(config, out=tmp_path / "one"), run(config, out=tmp_path / "two")
    assert first.digest == second.digest and read_parts(tmp_path / "one").height == 50
