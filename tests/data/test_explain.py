"""What explain says is what the stages do."""

from pathlib import Path

import polars as pl
import pytest

from components.core.errors import DataError
from components.data.check import check_raw
from components.data.clean import run as clean
from components.data.config import CheckRawConfig, CleanConfig, IngestConfig
from components.data.explain import explain
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
    assert [Path(each["path"]).name for each in answers] == list(FILES)
    assert [(each["decision"], each["reasons"]) for each in answers] == [
        ("keep", []),
        ("drop", ["too_small"]),
        ("drop", ["syntax_error"]),
        ("quarantine", ["nul_characters"]),
        ("drop", ["not_utf8"]),
        ("drop", ["empty"]),
        ("drop", ["contaminated"]),
    ]
    text = FILES["keep.py"].decode()
    spans = [(each["kind"], text[each["start"] : each["end"]]) for each in answers[0]["redactions"]]
    assert spans == [("email", "ann@mail.org"), ("ip", "10.1.2.3")]


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
    said = {Path(each["path"]).name: (each["decision"], each["reasons"]) for each in explain(sorted(root.iterdir()))}
    assert happened == {name: answer for name, answer in said.items() if name in happened}
    assert set(said) - set(happened) == {"latin.py", "white.py"}  # ingest counted these two


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.py: cannot be read"):
        explain([tmp_path / "absent.py"])
