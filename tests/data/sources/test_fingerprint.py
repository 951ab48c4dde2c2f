"""New data is seen: the fingerprint of a source changes when the source does, and only then."""

import json
import subprocess
from pathlib import Path

import pytest

from components.data.sources.config import (
    DirectorySource,
    FeedbackSource,
    GitSource,
    JsonlSource,
    PythonEnvironmentSource,
)
from components.data.sources.fingerprint import fingerprint, write


def git(repository: Path, *arguments: str) -> None:
    names = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    subprocess.run(["git", "-C", str(repository), *names, *arguments], check=True, capture_output=True)


def test_files_that_change_come_or_go(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "a.py").write_text("a = 1\n")
    source = DirectorySource(path=str(folder))
    seen = [fingerprint(source)]
    assert fingerprint(source) == seen[0]
    (folder / "b.py").write_text("b = 1\n")
    seen.append(fingerprint(source))
    (folder / "a.py").write_text("a = 10\n")
    seen.append(fingerprint(source))
    (folder / "b.py").unlink()
    seen.append(fingerprint(source))
    assert len(set(seen)) == 4
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_text("")
    assert fingerprint(source) == seen[-1], "Git's own files are no data"


def test_a_file_that_is_not_there_yet_is_seen_when_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    source = JsonlSource(paths=(str(path),))
    before = fingerprint(source)
    path.write_text("{}\n")
    assert fingerprint(source) != before
    folder = FeedbackSource(path=str(tmp_path / "events"))
    none_yet = fingerprint(folder)
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "one.parquet").write_bytes(b"PAR1")
    assert fingerprint(folder) != none_yet


def test_a_branch_that_moves_and_a_commit_that_cannot(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=one")
    branch = GitSource(url=str(repository), revision="main")
    first = fingerprint(branch)
    assert fingerprint(branch) == first
    git(repository, "commit", "--quiet", "--allow-empty", "--message=two")
    assert fingerprint(branch) != first
    pinned = GitSource(url="https://nowhere.invalid/x.git", revision="0" * 40)
    assert fingerprint(pinned) != fingerprint(branch), "nobody has to be asked"


def test_a_source_that_does_not_answer_keeps_its_last_fingerprint(tmp_path: Path) -> None:
    out = tmp_path / "sources.json"
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=one")
    sources = (GitSource(name="ours", url=str(repository), revision="main"), PythonEnvironmentSource())
    assert write(sources, out) == []
    content = out.read_bytes()
    repository.rename(tmp_path / "away")
    (note,) = write(sources, out)
    assert note.startswith("source ours could not be asked whether it changed: ")
    assert out.read_bytes() == content and set(json.loads(content)) == {"ours", "python-environment"}


@pytest.mark.parametrize("change", ["one-1.0.dist-info", "one-1.1.dist-info"])
def test_an_installed_distribution_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    before = fingerprint(PythonEnvironmentSource())
    (tmp_path / change).mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert fingerprint(PythonEnvironmentSource()) != before
