"""What explain says is what the stages do."""

import json
from pathlib import Path

import polars
import polars as pl
import pytest

from components.core.errors import DataError
from components.data.check import check_raw
from components.data.clean import run as clean
from components.data.cleaning.explain import explain
from components.data.config import CheckRawConfig, CleanConfig, DuplicateConfig, IngestConfig
from components.data.ingest import run as ingest
from components.data.sources.config import DirectorySource
from tests.data.conftest import read_parts

FILES = {
    "keep.py": b"def f(value):\n    return value + 1\n# write to ann@mail.org\n# or to 10.1.2.3, or nowhere at all\n",
    "small.py": b"x = 1\n",
    "broken.py": b"def f(value:\n    return value + 1\n# and more text to be large enough\n",
    "binary.py": b"x = 1\0\n" * 20,
    "latin.py": b"# gr\xfc\xdfe\n" * 20,
    "white.py": b" \n\n",
    "item.py": b'def add(a, b):\n    """Return the sum of a and b."""\n    return a + b\n\n\nprint(add(1, 2))\n',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    for name, content in FILES.items():
        (root / name).write_bytes(content)
    return root


def test_each_file_gets_its_decision(root: Path) -> None:
    answers = explain([root / name for name in FILES])
    assert [each.path.name for each in answers] == list(FILES)
    assert [(each.decision, list(each.reasons)) for each in answers] == [
        ("keep", []),
        ("drop", ["too_small"]),
        ("drop", ["syntax_error"]),
        ("quarantine", ["nul_characters"]),
        ("quarantine", ["not_utf8"]),
        ("quarantine", ["empty"]),
        ("drop", ["contaminated"]),
    ]
    text = FILES["keep.py"].decode()
    spans = [(each.kind, text[each.start : each.end]) for each in answers[0].redactions]
    assert spans == [("email", "ann@mail.org"), ("ip", "10.1.2.3")]
    assert answers[0].lines == (3, 4)


@pytest.mark.usefixtures("local_ray")
def test_the_stages_decide_alike(root: Path, tmp_path: Path) -> None:
    check = CheckRawConfig(max_quarantined_share=1.0)
    ingest(IngestConfig(sources=(DirectorySource(path=str(root)),)), out=tmp_path / "raw")
    check_raw(check, source=tmp_path / "raw", out=tmp_path / "checked")
    clean(CleanConfig(), source=tmp_path / "checked", out=tmp_path / "clean")
    quarantine = pl.read_parquet(tmp_path / "checked" / "quarantine.parquet")
    drops = pl.read_parquet(tmp_path / "clean" / "drops.parquet")
    happened = {
        **dict.fromkeys(read_parts(tmp_path / "clean")["path"], ("keep", [])),
        **{row["path"]: ("quarantine", [row["rule"]]) for row in quarantine.iter_rows(named=True)},
        **{row["path"]: ("drop", [row["reason"]]) for row in drops.iter_rows(named=True)},
    }
    said = {each.path.name: (each.decision, list(each.reasons)) for each in explain([root])}
    assert happened == {name: answer for name, answer in said.items() if name in happened}
    assert set(said) - set(happened) == {"latin.py", "white.py"}  # ingest counted these two


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.py: cannot be read"):
        explain([tmp_path / "absent.py"])


def test_json_has_four_keys_and_spans_of_three(root: Path) -> None:
    row = explain([root / "keep.py"])[0].row()
    start = FILES["keep.py"].index(b"ann@")
    assert json.loads(json.dumps(row)) == {
        "path": str(root / "keep.py"),
        "decision": "keep",
        "reasons": [],
        "redactions": [
            {"kind": "email", "start": start, "end": start + 12},
            {"kind": "ip", "start": FILES["keep.py"].index(b"10.1."), "end": FILES["keep.py"].index(b"10.1.") + 8},
        ],
    }


def test_a_person_reads_the_figure_that_decided_and_the_lines(root: Path) -> None:
    told = [line for each in explain([root / name for name in FILES]) for line in each.report()]
    assert [line.split()[0] for line in told if not line.startswith(" ")] == [
        each.decision for each in explain([root / name for name in FILES])
    ]
    email, address = FILES["keep.py"].index(b"ann@"), FILES["keep.py"].index(b"10.1.")
    for line in (
        f"line 3: email in characters {email} to {email + 12} becomes <EMAIL_1>",
        f"line 4: ip in characters {address} to {address + 8} becomes <IP_1>",
        "too_small: 6",
        "syntax_error: '(' was never closed (line 1)",
        "nul_characters: 20",
        "not_utf8: byte 4 is 0xfc",
        "empty: 3 bytes",
    ):
        assert f"{'':11}{line}" in told


def test_a_directory_stands_for_the_files_below_it(tmp_path: Path) -> None:
    for path in ("b/vendor/x.py", "a.py", ".git/config.py", "b/.hidden.py", "b/y.py"):
        (tmp_path / "top" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / path).write_text(
            f"def {Path(path).stem.strip('.')}(value):\n    return value, {len(path)}\n" * 2
        )
    (tmp_path / "top" / "link.py").symlink_to(tmp_path / "top" / "a.py")
    found = explain([tmp_path / "top", tmp_path / "top" / "a.py"])
    assert [(each.path.relative_to(tmp_path / "top").as_posix(), each.decision, each.details) for each in found] == [
        ("a.py", "keep", ()),
        ("b/vendor/x.py", "drop", ("b/vendor/",)),
        ("b/y.py", "keep", ()),
    ]
    (tmp_path / "none" / ".hidden").mkdir(parents=True)
    with pytest.raises(DataError, match="a directory without files"):
        explain([tmp_path / "none"])


def test_where_the_given_directory_lies_decides_nothing(tmp_path: Path) -> None:
    """A file in site-packages is no vendored file of the packages' own source; nor is one below a folder `vendor`."""
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "x.py").write_text(FILES["keep.py"].decode())
    found = explain([tmp_path / "vendor", Path(polars.__file__).parent / "exceptions.py"])
    assert [each.decision for each in found] == ["keep", "keep"]


def test_of_equal_and_of_near_files_one_stays(tmp_path: Path) -> None:
    text = "".join(f"value_{number} = call_{number * 7}(other_{number})\n" for number in range(60))
    files = {
        "near.py": text.replace("call_49", "called"),
        "longest.py": text + "# and one more line\n",
        "copy.py": text + "# and one more line\n",
        "other.py": text.replace("value", "result").replace("call", "ask").replace("other", "mine"),
        "private.py": text.replace("other_0)", "other_0)  # ann@mail.org"),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    found = {each.path.name: each for each in explain([tmp_path])}
    assert {name: (each.decision, each.reasons) for name, each in found.items()} == {
        "copy.py": ("keep", ()),
        "longest.py": ("drop", ("exact_duplicate",)),
        "near.py": ("drop", ("near_duplicate",)),
        "other.py": ("keep", ()),
        "private.py": ("drop", ("near_duplicate",)),
    }
    assert found["longest.py"].details == (f"the same text as {tmp_path / 'copy.py'}",)
    assert found["near.py"].details[0].endswith(f" of the shingles in common with {tmp_path / 'copy.py'}")
    alone = CleanConfig(duplicates=DuplicateConfig(near=False))
    assert sum(each.decision == "keep" for each in explain([tmp_path], clean=alone)) == 4


def test_the_stages_keep_the_same_duplicates(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("local_ray")
    root = tmp_path / "files"
    root.mkdir()
    text = "".join(f"value_{number} = call_{number * 7}(other_{number})\n" for number in range(60))
    for number in range(12):
        changed = text.replace(f"call_{number * 7}(", "called(").replace(f"other_{number * 5}", "mine")
        (root / f"{number}.py").write_text(changed + "# more\n" * (number % 5))
        (root / f"{number}_own.py").write_text(changed.replace("value", f"v{number}").replace("call", f"c{number}"))
    (root / "copy.py").write_text((root / "3.py").read_text())
    ingest(IngestConfig(sources=(DirectorySource(path=str(root)),)), out=tmp_path / "raw")
    check_raw(CheckRawConfig(), source=tmp_path / "raw", out=tmp_path / "checked")
    clean(CleanConfig(), source=tmp_path / "checked", out=tmp_path / "clean")
    drops = pl.read_parquet(tmp_path / "clean" / "drops.parquet")
    said = {each.path.name: each.reasons[0] for each in explain([root]) if each.decision == "drop"}
    assert said == dict(drops.select("path", "reason").rows()) and len(said) > 5
    assert set(said.values()) == {"exact_duplicate", "near_duplicate"}


def test_a_file_beyond_what_sources_take_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.py"
    with large.open("wb") as file:
        file.truncate(200_000_000_000)
    found = explain([large])[0]
    assert (found.decision, found.reasons) == ("quarantine", ("too_large",))
    assert found.details == ("200000000000 bytes, allowed 10000000",)
