"""Edits from the history of real repositories: what counts as one, and what hostile histories do not do."""

import os
from pathlib import Path

import polars as pl
import pytest

from components.data.documents.edit import Edit, edit_of
from components.data.sources import git
from components.data.sources.config import GitSource
from components.data.sources.reading import git_history
from tests.data.sources.test_git import repository, run

__all__ = ["repository"]
FUNCTION = '''\
"""A module."""


class Thing:
    @property
    def size(self):
        """Its size."""
        return {value}


def other(a):
    return a
'''


def commit(root: Path, subject: str, contents: dict[str, bytes], author: str = "Ann <ann@mail.org>") -> str:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    run(root, "add", "--all", "--force")
    run(root, "commit", "--quiet", "--allow-empty", "--author", author, "-m", subject)
    return run(root, "rev-parse", "HEAD")


def version(value: object) -> bytes:
    return FUNCTION.format(value=value).encode()


def read(root: Path, **more: object) -> tuple[list[Edit | None], pl.DataFrame, pl.DataFrame]:
    """The edits newest first, their table, and what was left."""
    source = GitSource.model_validate({"url": str(root), "licence": "MIT", "history_commits": 100, **more})
    *_, last = git.read(source)
    return [edit_of(text) for text in last.edits["text"]], last.edits, last.left


def test_a_commit_that_changes_one_function_is_an_edit(repository: Path) -> None:
    commit(repository, "Begin with a thing", {"lib/a.py": version(1)})
    digest = commit(repository, "Let the size be two", {"lib/a.py": version(2)}, "Bob <bob@mail.org>")
    edits, table, _ = read(repository)
    old = '@property\ndef size(self):\n    """Its size."""\n    return {}'
    assert edits == [Edit(subject="Let the size be two", before=old.format(1), after=old.format(2))]
    row = table.row(0, named=True)
    assert (row["path"], row["version"], row["author"]) == ("lib/a.py", digest, "Bob <bob@mail.org>")
    assert (row["package"], row["licence"], row["language"]) == ("project", "MIT", "python")


def test_what_is_no_small_edit_of_one_function_is_none(repository: Path) -> None:
    commit(repository, "Begin with a thing", {"a.py": version(1), "b.py": version(1)})
    commit(repository, "Change two files here", {"a.py": version(2), "b.py": version(2)})
    commit(repository, "Change two functions here", {"a.py": version(3).replace(b"return a", b"return 9")})
    commit(repository, "Change the module's words", {"a.py": version(3).replace(b"A module", b"The module")})
    commit(repository, "wip", {"a.py": version(4)})
    commit(repository, "Break its syntax here", {"a.py": version("(")})
    commit(repository, "Mend it once more", {"a.py": version(5)})
    commit(repository, "Rename a function here", {"a.py": version(5).replace(b"def other", b"def another")})
    commit(repository, "Change very many lines", {"a.py": version("(\n" + "1 +\n" * 99 + "1)")})
    commit(repository, "Change what is wanted least", {"a.txt": b"x\n"})
    commit(repository, "Change that once more", {"a.txt": b"y\n"})
    run(repository, "mv", "b.py", "c.py")
    commit(repository, "Move a file and change it", {"c.py": version(6)})
    (repository / "c.py").chmod(0o755)
    commit(repository, "Let everybody run it", {})
    edits, _, left = read(repository)
    assert edits == [] and left.is_empty()


def test_merges_and_what_the_patterns_leave_out_are_none(repository: Path) -> None:
    commit(repository, "Begin with a thing", {"a.py": version(1), "gen/a.py": version(1), ".x/a.py": version(1)})
    for path in ("gen/a.py", ".x/a.py"):
        commit(repository, "Change what is left out", {path: version(2)})
    run(repository, "checkout", "--quiet", "-b", "side")
    commit(repository, "Change it at the side", {"a.py": version(2)})
    run(repository, "checkout", "--quiet", "main")
    commit(repository, "Go on with another file", {"b.py": version(1)})
    run(repository, "merge", "--quiet", "--no-ff", "-m", "Merge what the side did", "side")
    edits, _, _ = read(repository, exclude=("gen/",))
    assert [each and each.subject for each in edits] == ["Change it at the side"]


def test_so_many_commits_are_read_and_no_more(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_history, "AT_ONCE", 4)  # two commits at once
    for number in range(8):
        commit(repository, f"Let it be {number}", {"a.py": version(number)})
    for most in (0, 1, 5, 100):
        batches = list(git.read(GitSource(url=str(repository), licence="MIT", history_commits=most)))
        found = pl.concat([each.edits for each in batches])["text"]
        assert [str(edit_of(text)).split("'")[1] for text in found] == [
            f"Let it be {number}" for number in range(7, max(0, 7 - most), -1)
        ]


def test_a_hostile_history_ends_nothing(repository: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"odd-\xfc.py")
    commit(repository, "Begin with a thing", {"a.py": version(1), "b.py": b"\xff\n", odd: version(1)})
    commit(repository, "Make a file too large", {"a.py": version(1) + b"# x\n" * 60_000})
    commit(repository, "Change it a little then", {"a.py": version(2) + b"# x\n" * 60_000})
    commit(repository, "Make it small once more", {"a.py": version(2)})
    commit(repository, "Write what is no text", {"b.py": b"\xfe\n"})
    commit(repository, "Put a null in it", {"a.py": version("'\0'")})
    commit(repository, "Nest it very deeply", {"a.py": version("(" * 5000 + ")" * 5000)})
    commit(repository, "Say it in bytes", {odd: version(2)})
    commit(repository, "A subject with\x01 an odd character", {"a.py": version(3)})
    (repository / "a.py").unlink()
    (repository / "a.py").symlink_to("/etc/passwd")
    commit(repository, "Make it a link here", {})
    (repository / "a.py").unlink()
    (repository / "a.py").symlink_to("/etc/shadow")
    commit(repository, "Let the link lead elsewhere", {})
    other = tmp_path / "other"
    other.mkdir()
    run(other, "init", "--quiet")
    commit(other, "Begin another one here", {"sub.py": b"s\n"})
    run(repository, "submodule", "--quiet", "add", str(other), "module.py")
    commit(repository, "Add a module to it", {})
    commit(repository / "module.py", "Go on with it", {"sub.py": b"t\n"})
    commit(repository, "Let the module go on", {})
    commit(repository, "Begin a last one here", {"c.py": version(1)})
    commit(repository, "Latin, not text", {"c.py": version(2)})
    raw = run(repository, "cat-file", "commit", "HEAD").encode().replace(b"Latin, not text", b"Latin, not t\xfcxt\n")
    (repository / "raw").write_bytes(raw)
    run(repository, "reset", "--quiet", "--soft", run(repository, "hash-object", "-t", "commit", "-w", "raw"))
    edits, _, left = read(repository)
    assert edits == [] and left.is_empty()


def test_a_history_that_cannot_be_read_is_left_and_its_files_are_not(repository: Path) -> None:
    commit(repository, "Begin with a thing", {"a.py": version(1)})
    digest = run(repository, "rev-parse", "HEAD:a.py")
    commit(repository, "Let it be two", {"a.py": version(2)})
    (repository / ".git" / "objects" / digest[:2] / digest[2:]).unlink()
    batches = list(git.read(GitSource(url=str(repository), licence="MIT", history_commits=9)))
    assert [row["text"] for each in batches for row in each.documents.iter_rows(named=True)] == [version(2).decode()]
    left = pl.concat([each.left for each in batches]).row(0, named=True)
    assert left["reason"] == "history_unreadable" and "\n" not in left["detail"]


def test_lines_of_other_systems_and_tabs() -> None:
    before, after = (f"class A:\r\n\tdef f(self):\r\n\t\treturn {value}\r\n".encode() for value in (1, 2))
    assert git_history.edit_in("s", before, after) == Edit(
        subject="s", before="def f(self):\n\treturn 1", after="def f(self):\n\treturn 2"
    )
    assert git_history.edit_in("s", before, before) is None
