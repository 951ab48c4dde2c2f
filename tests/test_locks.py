"""What is installed is what was locked: every file has a digest, and set-up asks for it."""

import re
import tomllib
from pathlib import Path

import pytest

from components.core.graph.closure import ROOT

LOCKS = (
    ROOT / "requirements.lock",
    *sorted((ROOT / "requirements").glob("*.lock")),
    ROOT / "benchmarks/requirements.txt",
)
CONSTRAINTS = ("requirements/cpu.lock", "requirements/cuda.lock")
ENTRY = re.compile(r"^\S.*(?:\n    .*)*", re.MULTILINE)
PINNED = re.compile(r"([a-z0-9._-]+)(\[[a-z,]+\])?==([^\s\\]+)(?: ; [^\\]+?)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+")


def entries(path: Path) -> list[str]:
    return [each for each in ENTRY.findall(path.read_text()) if not each.startswith("#")]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_digests_and_names_no_index(path: Path) -> None:
    found = entries(path)
    assert found and [each for each in found if not PINNED.fullmatch(each)] == []
    assert not re.search(r"https?:|file:|--(extra-)?index-url|--find-links", path.read_text())


def test_both_builds_of_torch_are_locked_at_one_version_and_cuda_is_apart() -> None:
    lock, cpu, cuda = ("".join(entries(ROOT / name)) for name in ("requirements.lock", *CONSTRAINTS))
    version = re.search(r"torch==(\S+)", lock)
    assert version and f"torch=={version[1]}+cpu" in cpu
    assert "nvidia-" in cuda and "nvidia-" not in lock, "a machine without a GPU would fetch two gigabytes"


def test_set_up_installs_nothing_without_digests() -> None:
    """Every line of the Makefile that installs: pip's, uv's, and what builds a package from source."""
    text = (ROOT / "Makefile").read_text()
    locked = re.search(r"^LOCKED := (.*)$", text, re.MULTILINE)
    assert locked and "--require-hashes" in locked[1] and "--build-constraints requirements.lock" in locked[1]
    lines = re.findall(r"^\t.* pip install .*$", text, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        ours = "--no-deps --no-build-isolation --offline --editable ." in line
        assert ours or "$(LOCKED)" in line or "--require-hashes" in line, line
        assert not re.search(r"[\"']?\w+[><=~]=", line), f"a requirement outside the locks: {line}"
    assert re.match(r"uv==[\d.]+ ", (ROOT / "requirements/uv.lock").read_text())


def test_the_lock_covers_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    locked = {each.split("==")[0].split("[")[0] for each in entries(ROOT / "requirements.lock")}
    assert {re.split(r"[^A-Za-z0-9._-]", each)[0].lower() for each in asked} <= locked
