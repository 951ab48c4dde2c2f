"""What people write is read with a byte order mark and with CRLF, by whatever reads it; UTF-16 is one clear line."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.alignment.rewards.constitution import read_constitution
from components.core.config import read_settings, read_yaml
from components.core.errors import OvernightError
from components.core.graph.closure import ROOT
from components.core.text import readable, text_of
from components.data.cleaning.suite_formats import json_lines
from components.data.config import IngestConfig
from components.data.documents.licence_text import TEXTS
from components.data.ingest import run
from components.data.intake import opt_out
from components.data.sources.config import DirectorySource, JsonlSource
from components.evaluation.measures.execute import execute
from components.evaluation.measures.functional import read_suite
from components.evaluation.safety.prompts import read_prompts
from flows.running import params
from tests.data.conftest import read_parts

TASK = {
    "task_id": "t/0",
    "prompt": "def one():\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}
PROMPT = {"id": "a", "category": "b", "text": "How?", "signs": ["first step"]}
CONSTITUTION = "principles:\n- name: kind\n  text: Be kind.\n"


def _settings(path: Path) -> Any:
    (path.parent / "settings.toml").write_bytes(path.read_bytes())
    return read_settings({"OVERNIGHT_STATE": str(path.parent)}).gateway_port


def _requested(path: Path) -> Any:
    (path.parent / params.PARAMS).write_bytes(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        return params.requested(None, None, ["ingest.seed=7"])


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "yaml": ("a: 1\nb:\n- x\n", read_yaml),
    "settings.toml": ("gateway_port = 8123\nhost = '127.0.0.1'\n", _settings),
    "params.yaml": ((ROOT / "params.yaml").read_text(), _requested),
    "opt-out.yaml": ("# all\n- path: internal/**\n", opt_out.read),
    "constitution.yaml": (CONSTITUTION, read_constitution),
    "json lines": (json.dumps({"text": "a\r\nb"}) + "\n" + json.dumps({"n": 2}) + "\n", json_lines),
    "suite": (json.dumps(TASK) + "\n", lambda path: read_suite(path).tasks),
    "red team": (json.dumps(PROMPT) + "\n", read_prompts),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("form", ["bom", "crlf", "both"])
def test_every_reader_takes_a_byte_order_mark_and_crlf(tmp_path: Path, name: str, form: str) -> None:
    text, read = READERS[name]
    path = tmp_path / "file"
    path.write_bytes(text.encode())
    plain = read(path)
    written = text.replace("\n", "\r\n") if form != "bom" else text
    path.write_bytes(written.encode("utf-8-sig" if form != "crlf" else "utf-8"))
    assert read(path) == plain and plain


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "latin-1"])
def test_another_encoding_is_one_line_that_says_what_to_do(tmp_path: Path, name: str, codec: str) -> None:
    text, read = READERS[name]
    path = tmp_path / "file"
    path.write_bytes((text + "# größe").encode(codec))
    with pytest.raises(OvernightError, match="save it as UTF-8") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_solutions_are_read_with_a_byte_order_mark(tmp_path: Path) -> None:
    suite, solutions = tmp_path / "suite.jsonl", tmp_path / "solutions.jsonl"
    suite.write_bytes((json.dumps(TASK) + "\r\n").encode("utf-8-sig"))
    solutions.write_bytes((json.dumps({"task_id": "t/0", "completion": "    return 1\n"}) + "\r\n").encode("utf-8-sig"))
    assert execute(read_suite(suite), solutions).passed == 1


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_no_row_is_lost_to_a_byte_order_mark(tmp_path: Path, codec: str) -> None:
    rows = [{"text": f"x = {number}\n", "path": f"{number}.py"} for number in range(10)]
    (tmp_path / "rows.jsonl").write_bytes("\r\n".join(map(json.dumps, rows)).encode(codec))
    (tmp_path / "good.jsonl").write_text(json.dumps({"text": "good"}))
    run(IngestConfig(sources=(JsonlSource(paths=(str(tmp_path),), licence="MIT"),)), out=tmp_path / "raw")
    left = pl.read_parquet(tmp_path / "raw" / "left.parquet")
    if codec == "utf-8-sig":
        assert read_parts(tmp_path / "raw").height == 11 and left.is_empty()
    else:
        assert read_parts(tmp_path / "raw").height == 1
        assert left.select("path", "reason").rows() == [("rows.jsonl", "not_utf8")]
        assert "begins as UTF-16 does, needed UTF-8; save it as UTF-8" in left["detail"][0]


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_a_licence_counts_in_either_encoding(tmp_path: Path, codec: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("x = 1\n")
    (tmp_path / "src" / "LICENSE").write_bytes((TEXTS / "MIT.txt").read_text().replace("\n", "\r\n").encode(codec))
    source = DirectorySource(path=str(tmp_path / "src"), licence="detect")
    run(IngestConfig(sources=(source,)), out=tmp_path / "raw")
    assert read_parts(tmp_path / "raw")["licence"].to_list() == ["MIT"]


def test_an_opt_out_list_with_a_byte_order_mark_can_be_added_to(tmp_path: Path) -> None:
    path = tmp_path / "opt-out.yaml"
    path.write_bytes("# ours\r\n- path: a\r\n".encode("utf-8-sig"))
    assert opt_out.add(path, opt_out.Entry(path="b"))
    assert [each.path for each in opt_out.read(path)] == ["a", "b"] and "# ours" in path.read_text()


def test_text_and_what_is_only_searched() -> None:
    assert text_of("\ufeffa\r\nb\ufeff".encode()) == "a\nb\ufeff"
    assert readable(b"\xef\xbb\xbfgr\xfc") == "gr\ufffd" and readable("x".encode("utf-16")) == "x"


# Modules that read what only this project writes, with the files.
OWN = {
    "components/data/documents/licence_text.py": "texts of licences",
    "components/data/check.py": "summary.json",
    "components/data/cleaning/work_pieces.py": "records of pieces",
    "components/data/contracts/rules.py": "our suites of expectations",
    "components/data/sources/fingerprint.py": "fingerprints",
    "components/data/sources/python_environment.py": "RECORD, which installers write",
    "components/evaluation/measures/execute.py": "read_text of core.text",
}


def test_what_people_write_is_read_in_one_place() -> None:
    """`Path.read_text` keeps a byte order mark: in these folders only what we wrote ourselves is read by it."""
    found = set()
    for folder in ("components/data", "components/alignment", "components/evaluation"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            if any(isinstance(call, ast.Attribute) and call.attr == "read_text" for call in calls):
                found.add(path.relative_to(ROOT).as_posix())
    assert found <= set(OWN), "use components.core.text.read_text"
