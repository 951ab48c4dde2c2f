"""The running environment as a source: each file under the licences of all that ship it, no path of the machine."""

import sysconfig
from pathlib import Path

import polars as pl
import pytest

from components.data.config import IngestConfig
from components.data.ingest import run
from components.data.sources import python_environment
from components.data.sources.reading.files import SourceFile
from tests.data.conftest import read_parts


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
            "good/__init__.py": ("alias", "Apache-2.0 AND MIT"),
            "good/deep/a.py": ("good-one", "MIT"),
        }
        assert manifest.statistics["left_by_reason"] == {"copyleft": 2, "no_licence": 1}
        assert not any(str(tmp_path) in str(row) for row in found.iter_rows())
        digests.append(manifest.digest)
    assert digests[0] == digests[1]


def test_a_distribution_that_cannot_be_read_is_left_and_the_others_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(tmp_path, monkeypatch, backwards=False)
    names = ("latin", "nameless", "empty", "record")
    for name in names:
        distribution(tmp_path / "site-packages", name, {f"{name}.py": "x = 1\n"}, "License: MIT", "")
    info = {
        name: tmp_path / "site-packages" / f"{name}-1.0.dist-info" for name in ("latin", "nameless", "empty", "record")
    }
    (info["latin"] / "METADATA").write_bytes("Name: latin\nVersion: 1\nAuthor: Jörg\n".encode("latin-1"))
    (info["nameless"] / "METADATA").write_text("Version: 1.0\nLicense: MIT\n")
    (info["empty"] / "METADATA").unlink()
    (info["record"] / "RECORD").write_text("x" * 200_000 + ",,\n")
    run(IngestConfig(), out=tmp_path / "raw")
    assert "good/deep/a.py" in read_parts(tmp_path / "raw")["path"].to_list()
    left = pl.read_parquet(tmp_path / "raw" / "left.parquet").filter(pl.col("reason") == "unreadable_metadata")
    assert set(left["path"]) == {each.name for each in info.values()}


def test_the_running_environment_has_a_library_and_distributions() -> None:
    found = [file for file in python_environment.find() if isinstance(file, SourceFile)]
    packages = {file.package for file in found}
    assert {"python", "polars"} <= packages and "overnight" not in packages
    assert all(file.location.endswith(".py") and not file.path.startswith(("/", "..")) for file in found)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ("MIT", "MIT", "MIT"),
        ("MIT", None, None),
        ("MIT OR ISC", "Apache-2.0", "(MIT OR ISC) AND Apache-2.0"),
        ("MIT", "All rights reserved.\nNo copies.", "All rights reserved.\nNo copies."),
    ],
)
def test_a_file_of_two_distributions_is_under_both_licences(
    first: str | None, second: str | None, wanted: str | None
) -> None:
    assert python_environment._together(first, second) == wanted
