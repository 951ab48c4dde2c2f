"""A Git revision as a source, from real repositories: what is in the commit, and nothing of the repository is run."""

import os
import subprocess
import tempfile
from pathlib import Path

import polars as pl
import pytest

from components.core.config import environment, validate
from components.core.errors import ConfigError, DataError
from components.data.config import IngestConfig
from components.data.documents.licence_text import TEXTS
from components.data.documents.licences import PERMISSIVE, judge
from components.data.sources import git
from components.data.sources.config import GitSource

MIT = (TEXTS / "MIT.txt").read_text(encoding="utf-8")
IDENTITY = ("-c", "user.name=Ann", "-c", "user.email=ann@mail.org", "-c", "protocol.file.allow=always")


def run(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *IDENTITY, "-C", str(root), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path, contents: dict[str, bytes]) -> str:
    """Write, commit, and return the commit's id."""
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    run(root, "add", "--all", "--force")
    run(root, "commit", "--quiet", "--allow-empty", "-m", "more")
    return run(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    root = tmp_path / "project"
    root.mkdir()
    run(root, "init", "--quiet", "--initial-branch=main")
    return root


def read(root: Path | str, **more: object) -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, str]]]:
    """The documents by path, and reason and detail of what was left by path."""
    batches = list(git.read(GitSource.model_validate({"url": str(root), **more})))
    rows = pl.concat([batch.documents for batch in batches])
    left = pl.concat([batch.left for batch in batches])
    assert not list(Path(tempfile.gettempdir()).iterdir()), "the temporary repository stayed"
    return {row["path"]: row for row in rows.iter_rows(named=True)}, {row[0]: row[1:] for row in left.iter_rows()}


def test_a_revision_is_read_as_it_was(repository: Path) -> None:
    first = commit(repository, {"a.py": b"old\n", "LICENSE": MIT.encode(), "lib/b.py": "größe\n".encode()})
    run(repository, "tag", "--annotate", "-m", "one", "v1")
    second = commit(repository, {"a.py": b"new\n", "lib/COPYING": b"GNU GENERAL PUBLIC LICENSE"})
    found, _ = read(repository)
    assert {path: (row["text"], row["licence"]) for path, row in found.items()} == {
        "a.py": ("new\n", "MIT"),
        "lib/b.py": ("größe\n", "GNU GENERAL PUBLIC LICENSE"),
    }
    assert {row["version"] for row in found.values()} == {second}
    assert {row["package"] for row in found.values()} == {"project"}
    for revision in ("v1", first):
        old, _ = read(repository.as_uri(), revision=revision, licence="ISC", package="p/q")
        row = old["a.py"]
        assert (row["text"], row["version"], row["licence"], row["package"]) == ("old\n", first, "ISC", "p/q")
    # What is changed and not committed is no part of a revision.
    (repository / "a.py").write_text("dirty\n")
    assert read(repository, revision="main")[0]["a.py"]["text"] == "new\n"


def test_licence_files_as_people_name_and_write_them(repository: Path) -> None:
    """Rails', REUSE's, one with the marks of another system, and one whose last sentence takes the others back."""
    zlib = (TEXTS / "Zlib.txt").read_text()
    files = {
        "rails/MIT-LICENSE": MIT.encode(),
        "zlib/LICENSE": zlib.encode("utf-8-sig").replace(b"\n", b"\r\n"),
        "boost/LICENSE_1_0.txt": (TEXTS / "BSL-1.0.txt").read_text().encode("utf-16"),
        "reuse/LICENSES/ISC.txt": (TEXTS / "ISC.txt").read_bytes(),
        "taken/LICENSE": (MIT + "\nThe permission above is given for non-commercial use only.\n").encode(),
    }
    folders = {path.split("/")[0] for path in files}
    commit(repository, files | {f"{folder}/src/a.py": f"# {folder}\n".encode() for folder in folders})
    found, _ = read(repository, licence="detect")
    verdicts = {
        path.split("/")[0]: judge(row["licence"], PERMISSIVE) for path, row in found.items() if path.endswith("a.py")
    }
    taken = verdicts.pop("taken")
    assert {folder: verdict.licence for folder, verdict in verdicts.items()} == {
        "rails": "MIT",
        "zlib": "Zlib",
        "boost": "BSL-1.0",
        "reuse": "ISC",
    }
    assert taken == (
        None,
        "unknown_licence",
        "MIT, and beyond it: the permission above is given for non commercial use only",
    )


def test_what_is_no_text_of_the_repository_is_left_and_told(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    run(other, "init", "--quiet")
    commit(other, {"sub.py": b"s\n"})
    run(repository, "submodule", "--quiet", "add", str(other), "module")
    (repository / "link.py").symlink_to("/etc/passwd")
    (repository / os.fsdecode(b"odd-\xfc.py")).write_text("x")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    contents = {
        "large.py": b"x" * 2000,
        "lfs.py": pointer,
        "a.py": b"a\n",
        "binary.py": b"\x00\xff",
        ".ci/hidden.py": b"h\n",
        "image.png": b"\x89",
    }
    commit(repository, contents)
    found, left = read(repository, max_document_bytes=1000)
    assert set(found) == {"a.py"}
    assert {path: reason for path, (reason, _) in left.items()} == {
        ".ci/hidden.py": "hidden",
        ".gitmodules": "hidden",
        "binary.py": "binary",
        "image.png": "unknown_language",
        "large.py": "too_large",
        "lfs.py": "lfs_pointer",
        "link.py": "link",
        "module": "submodule",
        "odd-\\xfc.py": "path_not_utf8",
    }


def test_many_blobs_come_in_order_and_whole(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "AT_ONCE", 7)
    monkeypatch.setattr("components.data.sources.reading.files.BATCH_ROWS", 5)
    contents = {
        f"d{number % 5}/f{number:03}.py": (f"x = {number}\n" * (number * 50 + 1)).encode() for number in range(60)
    }
    commit(repository, contents)
    found, _ = read(repository, include=("*.py",))
    assert {path: row["text"].encode() for path, row in found.items()} == contents


def test_no_history_is_fetched_and_nothing_is_run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        commit(repository, {"a.py": f"{number}\n".encode()})
    trap = repository / "ran"
    for hook in ("post-checkout", "post-merge", "pre-receive", "reference-transaction"):
        (repository / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {trap}\n")
        (repository / ".git" / "hooks" / hook).chmod(0o755)
    commit(repository, {".gitattributes": b"*.py filter=trap\n"})
    run(repository, "config", "filter.trap.smudge", f"touch {trap}")
    trap.unlink(missing_ok=True)
    kept: list[str] = []
    fetch = git._fetch

    def counted(temporary: Path, config: GitSource) -> str:
        found = fetch(temporary, config)
        kept.append(run(temporary, "rev-list", "--count", "--all"))
        return found

    monkeypatch.setattr(git, "_fetch", counted)
    assert read(repository)[0]["a.py"]["text"] == "4\n"
    assert kept == ["1"] and not trap.exists()


@pytest.mark.parametrize(
    ("url", "revision", "message"),
    [
        ("{root}", "absent", "couldn't find remote ref absent"),
        ("{root}", "0" * 40, "at 0000"),
        ("{root}/nothing", "HEAD", "does not appear to be a git repository"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(repository: Path, url: str, revision: str, message: str) -> None:
    commit(repository, {"a.py": b"a\n"})
    with pytest.raises(DataError, match=message) as error:
        read(url.format(root=repository), revision=revision)
    assert "\n" not in str(error.value) and "needed an https, ssh or file URL" in str(error.value)
    assert not (repository / "ran").exists()


TRAP = "--upload-pack=touch {trap};git-upload-pack"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (TRAP, "it can be taken for an option"),
        ("-u", "it can be taken for an option"),
        ("ssh://-oProxyCommand=touch {trap}/x", "it can be taken for an option"),
        ("git@-oProxyCommand=x:y", "it can be taken for an option"),
        ("ext::sh -c 'touch {trap}'", "its transport is not allowed"),
        ("http://127.0.0.1:9/x.git", "its transport is not allowed"),
        ("git://127.0.0.1/x.git", "its transport is not allowed"),
    ],
)
def test_an_address_that_git_could_obey_is_refused_by_the_config(url: str, message: str, tmp_path: Path) -> None:
    value = {"sources": [{"kind": "git", "url": url.format(trap=tmp_path / "ran")}]}
    with pytest.raises(
        ConfigError, match=f"{message}.*; needed https, ssh or file URL, user@host:path, or a path"
    ) as error:
        validate(value, IngestConfig, "params.yaml", "ingest")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("revision", ["--upload-pack=x", "-x", "a:b", "+x", "^x", "a b", "v*"])
def test_a_revision_is_a_name(revision: str) -> None:
    with pytest.raises(ValueError, match="revision"):
        GitSource(url="/srv/x", revision=revision)


def test_even_an_address_that_nobody_checked_is_no_option(repository: Path, tmp_path: Path) -> None:
    """What a cycle asks at its start, and what ingest asks, both name where the options end."""
    commit(repository, {"a.py": b"a\n"})
    trap = tmp_path / "ran"
    source = GitSource(url=str(repository)).model_copy(update={"url": TRAP.format(trap=trap)})
    for ask in (git.standing, lambda each: list(git.read(each))):
        with pytest.raises(DataError):
            ask(source)
    assert not trap.exists() and git.standing(GitSource(url=str(repository))).endswith("HEAD")


def test_a_hostile_repository_of_this_machine_runs_nothing(repository: Path, tmp_path: Path) -> None:
    """Neither by what its config names for its own commands, nor by a promise that others have its objects."""
    commit(repository, {"a.py": b"a\n", "b.py": b"b\n"})
    trap = tmp_path / "ran"
    hooks = repository / ".git" / "hooks"
    for name in ("post-upload-pack", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {trap}\n")
        (hooks / name).chmod(0o755)
    command = f"touch {trap}; false"
    config = {
        "core.fsmonitor": command,
        "core.sshCommand": command,
        "core.alternateRefsCommand": command,
        "uploadpack.packObjectsHook": command,
        "credential.helper": f"!{command}",
        "extensions.partialClone": "origin",
        "remote.origin.url": repository.as_uri(),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": f"touch {trap};git-upload-pack",
        "protocol.ext.allow": "always",
    }
    run(repository, "config", "core.repositoryFormatVersion", "1")
    for name, value in config.items():
        run(repository, "config", name, value)
    assert set(read(repository)[0]) == {"a.py", "b.py"}
    trap.unlink(missing_ok=True)  # our own commands above may have run it
    assert set(read(repository)[0]) == {"a.py", "b.py"} and not trap.exists()
    digest = run(repository, "rev-parse", "HEAD:b.py")
    trap.unlink(missing_ok=True)
    (repository / ".git" / "objects" / digest[:2] / digest[2:]).unlink()
    with pytest.raises(DataError):
        read(repository)
    assert not trap.exists()


@pytest.mark.parametrize(
    "url", ["https://ann:hunter2@127.0.0.1:9/x.git", "https://hunter2@h/x", "ssh://ann:hunter2@h/x", "ann:hunter2@h:x"]
)
def test_a_password_in_an_address_is_refused_and_not_shown(url: str) -> None:
    value = {"sources": [{"kind": "directory", "path": "x"}, {"kind": "git", "url": url}]}
    with pytest.raises(
        ConfigError, match=r"sources\.1\.git\.url is .*a password or a token.*credential\.helper"
    ) as error:
        validate(value, IngestConfig, "params.yaml", "ingest")
    assert "hunter2" not in str(error.value)
    with pytest.raises(ValueError) as plain:
        GitSource(url=url)
    assert "hunter2" not in str(plain.value)


def test_leftovers_of_a_killed_run_go(repository: Path) -> None:
    commit(repository, {"a.py": b"a\n"})
    child = subprocess.Popen(["true"], env=environment())
    child.wait()
    (Path(tempfile.gettempdir()) / f"overnight-git-{child.pid}-x" / "objects").mkdir(parents=True)
    assert set(read(repository)[0]) == {"a.py"}  # and `read` sees nothing left


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://example.org/team/tool.git", "team/tool"),
        ("git@example.org:team/tool.git", "team/tool"),
        ("ssh://git@example.org:22/team/deep/tool", "deep/tool"),
        ("file:///srv/git/tool.git", "tool"),
        ("/srv/git/tool/", "tool"),
    ],
)
def test_a_package_is_named_by_the_end_of_the_address(url: str, wanted: str) -> None:
    assert git.package_of(url) == wanted
