"""A directory as a source: what Git would ignore is left, nothing outside is read, a file is whole or not taken."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from components.data.documents.licence_text import TEXTS
from components.data.sources import directory
from components.data.sources.config import DirectorySource
from components.data.sources.reading import files

MIT = (TEXTS / "MIT.txt").read_text(encoding="utf-8")
APACHE = "Apache License\nVersion 2.0, January 2004"


def write(root: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def read(root: Path, **more: object) -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, str]]]:
    """The documents by path, and reason and detail of what was left by path."""
    batches = list(directory.read(DirectorySource.model_validate({"path": str(root), **more})))
    rows = pl.concat([batch.documents for batch in batches])
    left = pl.concat([batch.left for batch in batches])
    assert rows["path"].n_unique() == rows.height
    return {row["path"]: row for row in rows.iter_rows(named=True)}, {row[0]: row[1:] for row in left.iter_rows()}


def test_git_ignores_the_same_files(tmp_path: Path) -> None:
    """Git itself is the oracle, for patterns that are nested, anchored, negated, quoted or nonsense."""
    names = ["a.py", "build/b.py", "src/build/c.py", "src/keep.py", "src/gen/d.py", "src/gen/e.py", "deep/x/y/f.py"]
    names += ["deep/x/g.py", "doc/h.py", "doc/sub/h.py", "hash#1.py", "sp ace.py", "src/[odd].py", "src/tmp1.py"]
    names += ["a.py.py", "].py", f"{'a' * 123}.py", "odd/a.py", "odd/].py", "odd/[.py"]
    names += ["src/tmp2.py", "other/tmp1.py", "out/kept.py", "out/more/i.py", "größe.py"]
    write(tmp_path, dict.fromkeys(names, "x = 1\n"))
    write(
        tmp_path,
        {
            ".gitignore": "/build\n*.tmp\ndoc/*.py\n!doc/h.py\ndeep/**/f.py\n\\#x\nsp\\ ace.py\nout/*\n!out/kept.py\n",
            "src/.gitignore": "gen/\ntmp?.py\n!tmp2.py\n\\[odd].py\n",
            "src/gen/.gitignore": "!e.py\n",
            "deep/.gitignore": "!f.py\n[z-\n!\n",
            "odd/.gitignore": "\ufeff[a-\\]].py\r\n*a*a*a*a*a*ab\r\n",
        },
    )
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    listing = ["git", "-C", str(tmp_path), "ls-files", "-z", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0")
    wanted = {name for name in listed if name.endswith(".py")}
    found, left = read(tmp_path)
    assert set(found) == wanted and 5 < len(wanted) < len(names)
    assert left["src/gen/"] == ("gitignore", "src/.gitignore")
    assert set(read(tmp_path, gitignore=False)[0]) == set(names)


def test_patterns_choose_files(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(["a.py", "lib/b.py", "lib/test_b.py", "lib/c.js", "d.js"], "x"))
    found, left = read(tmp_path, include=("lib/", "*.js"), exclude=("test_*",))
    assert set(found) == {"lib/b.py", "lib/c.js", "d.js"}
    assert left == {"a.py": ("not_included", ""), "lib/test_b.py": ("excluded", "")}


def test_links_are_never_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(root, {"a.py": "a = 1\n", "sub/b.py": "b = 1\n"})
    write(outside, {"secret.py": "s = 1\n"})
    (root / "file.py").symlink_to(outside / "secret.py")
    (root / "folder").symlink_to(outside)
    (root / "sideways.py").symlink_to("../outside/secret.py")
    (root / "inside.py").symlink_to("sub/b.py")
    (root / "loop").symlink_to(root)
    (root / "self.py").symlink_to("self.py")
    found, left = read(root)
    assert set(found) == {"a.py", "sub/b.py"}
    assert {path: reason for path, (reason, _) in left.items()} == {
        "file.py": "link_outside",
        "folder": "link_outside",
        "sideways.py": "link_outside",
        "inside.py": "link",
        "loop": "link",
        "self.py": "link_broken",
    }
    # A file that becomes a link between the listing and the reading is not followed either.
    assert files.read_content(str(root / "file.py"), 100) == ("unreadable", "Too many levels of symbolic links")


def test_pipes_do_not_hang_and_odd_names_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "a"})
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / os.fsdecode(b"latin-\xfc.py")).write_text("x")
    found, left = read(tmp_path)
    assert set(found) == {"a.py"}
    assert left == {
        "pipe.py": ("not_a_file", "neither a file nor a directory"),
        "latin-\\xfc.py": ("path_not_utf8", ""),
    }


def test_the_nearest_licence_file_is_the_licence(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.py": "a",
            "LICENSE": MIT,
            "lib/deep/b.py": "b",
            "lib/LICENSE-APACHE": APACHE,
            "lib/LICENSE-MIT": MIT,
            "other/COPYING.md": "All rights reserved.",
            "other/c.py": "c",
            "code/license.py": "d",
            "rails/MIT-LICENSE": MIT,
            "rails/d.py": "e",
            "reuse/LICENSES/Zlib.txt": (TEXTS / "Zlib.txt").read_text(),
            "reuse/LICENSES/CC0-1.0.txt": (TEXTS / "CC0-1.0.txt").read_text(),
            "reuse/src/e.py": "f",
            "taken/LICENSE": MIT + "\nThe permission above is given for non-commercial use only.\n",
            "taken/f.py": "g",
        },
    )
    found, _ = read(tmp_path, licence="detect")
    assert str(found.pop("taken/f.py")["licence"]).endswith("non-commercial use only.\n"), "the text, which is none"
    assert {path: row["licence"] for path, row in found.items() if path.endswith(".py")} == {
        "rails/d.py": "MIT",
        "reuse/src/e.py": "CC0-1.0 AND Zlib",
        "a.py": "MIT",
        "lib/deep/b.py": "Apache-2.0 AND MIT",
        "other/c.py": "All rights reserved.",
        "code/license.py": "MIT",
    }
    (tmp_path / "LICENSE").unlink()
    assert read(tmp_path, licence="detect")[0]["a.py"]["licence"] is None


def test_an_unreadable_file_and_directory_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the file system: the reader is another user's, or, for root, the calls themselves are made to fail."""
    write(tmp_path, {"a.py": "a", "b.py": "b", "closed/c.py": "c"})
    opened, listed = os.open, os.scandir

    def refuse(call: Callable[..., object]) -> Callable[..., object]:
        def refused(path: str, *arguments: object) -> object:
            if str(path).endswith(("/b.py", "/closed")):
                raise PermissionError(13, "Permission denied", path)
            return call(path, *arguments)

        return refused

    monkeypatch.setattr(os, "open", refuse(opened))
    monkeypatch.setattr(os, "scandir", refuse(listed))
    found, left = read(tmp_path)
    assert set(found) == {"a.py"}
    assert left == {"b.py": ("unreadable", "Permission denied"), "closed/": ("unreadable", "Permission denied")}


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_under_the_reader_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"x = 1\n" * 1000)
    os.utime(path, (1, 1))  # a clock that ticks in milliseconds would not tell two writes at once apart
    read_once = os.read

    def meanwhile(descriptor: int, size: int) -> bytes:
        content = read_once(descriptor, min(size, 100))
        if content:
            with path.open("r+b") as other:
                other.truncate(50) if change == "shrink" else other.seek(0, 2 if change == "grow" else 0)
                other.write(b"y = 2\n") if change != "shrink" else None
        return content

    monkeypatch.setattr(os, "read", meanwhile)
    found, left = read(tmp_path)
    assert not found and left["a.py"][0] == "changed"


def test_many_files_wait_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source holds what is on its way and no list of all files: it gives batches before it has seen the end."""
    for number in range(3000):
        (tmp_path / f"f{number}.py").write_text(f"x = {number}\n")
    monkeypatch.setattr(files, "BATCH_ROWS", 500)
    batches = directory.read(DirectorySource(path=str(tmp_path)))
    first = next(batches)
    assert first.documents.height == 500
    assert sum(batch.documents.height for batch in batches) == 2500
