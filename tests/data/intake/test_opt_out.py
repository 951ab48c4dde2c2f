"""The opt-out list: what an entry fits, what it does not, and that writing it loses nothing."""

import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import ConfigError
from components.data.documents.document import document_id
from components.data.intake.opt_out import Entry, add, opted_out, read

GIT = "https://github.com/Octocat/hello.git"


def fits(entry: Entry | list[Entry], **columns: str | None) -> str | None:
    entries = entry if isinstance(entry, list) else [entry]
    row = {"id": "0" * 64, "author": None, "package": "p", "path": "a.py", **columns}
    return pl.DataFrame([row], schema=dict.fromkeys(row, pl.String)).select(opted_out(entries)).item()


@pytest.mark.parametrize(
    ("glob", "inside", "outside"),
    [
        ("secrets", ["secrets/a.py", "x/secrets/b/c.py", "secrets"], ["secrets.py", "my_secrets/a.py"]),
        ("/secrets", ["secrets/a.py"], ["x/secrets/a.py"]),
        ("*.sql", ["a.sql", "deep/er/b.sql"], ["a.sqlite", "sql"]),
        ("internal/**/*.py", ["internal/a.py", "internal/b/c/d.py"], ["internal/a.js", "external/a.py"]),
        ("docs/?.md", ["docs/a.md", "site/docs/b.md"], ["docs/ab.md"]),
        ("a+b (1).py", ["a+b (1).py"], ["aab 1.py", "aab (1).py"]),
    ],
)
def test_a_path_fits_as_gitignore_has_it(glob: str, inside: list[str], outside: list[str]) -> None:
    entry = Entry(path=glob)
    assert [fits(entry, path=each) for each in inside] == ["path"] * len(inside)
    assert [fits(entry, path=each) for each in outside] == [None] * len(outside)


@pytest.mark.parametrize(
    "package", [GIT, "git@github.com:octocat/hello.git", "octocat/Hello", "ssh://git@h/octocat/hello"]
)
def test_a_repository_fits_by_the_end_of_its_address_in_any_case(package: str) -> None:
    for glob in ("octocat/hello", "octocat/*", "OCTOCAT/HELLO", "hello"):
        assert fits(Entry(repository=glob), package=package) == "repository"
    for glob in ("octocat", "cat/hello", "octocat/hell", "*/other"):
        assert fits(Entry(repository=glob), package=package) is None


def test_a_whole_address_fits_the_repository_that_it_names() -> None:
    assert fits(Entry(repository=GIT), package="git@github.com:octocat/hello") == "repository"
    assert fits(Entry(repository=GIT), package="https://gitlab.com/octocat/hello") is None


@pytest.mark.parametrize("author", ["Jane Doe", "jane@example.org", "Jane Doe <jane@example.org>, Al <al@example.org>"])
def test_an_author_fits_by_name_or_address(author: str) -> None:
    wanted = "jane doe" if "Doe" in author else "JANE@example.org"
    assert fits(Entry(author=wanted), author=author) == "author"
    assert fits(Entry(author="jane"), author=author) is None
    assert fits(Entry(author=wanted), author=None) is None


def test_repository_and_path_have_to_fit_both() -> None:
    entry = Entry(repository="octocat/hello", path="/keys")
    assert fits(entry, package=GIT, path="keys/a.py") == "path"
    assert fits(entry, package=GIT, path="src/keys/a.py") is None
    assert fits(entry, package="octocat/other", path="keys/a.py") is None


@given(st.text(st.characters(exclude_characters="*?/\\", exclude_categories=("Cs",)), min_size=1))
def test_a_name_without_wildcards_fits_itself_alone(name: str) -> None:
    assert fits(Entry(path=f"/{name}"), path=name) == "path"
    assert fits(Entry(path=f"/{name}"), path=f"{name}x") is None


def test_a_backslash_is_a_slash_on_both_sides() -> None:
    assert fits(Entry(path="\\src\\keys"), path="src\\keys\\a.py") == "path"
    assert fits(Entry(path="/src/keys"), path="src\\keys\\a.py") == "path"
    assert fits(Entry(path="\\src\\keys"), path="src\\key") is None


def test_thousands_of_entries_are_one_expression() -> None:
    entries = [Entry(repository=f"owner{number}/*") for number in range(5000)]
    entries += [Entry(id=document_id(str(number))) for number in range(5000)]
    assert fits(entries, package="github.com/owner4999/x") == "repository"
    assert fits(entries, id=document_id("4999")) == "id"
    assert fits(entries, package="github.com/owner5000/x") is None


def test_no_entry_fits_nothing_and_needs_no_column() -> None:
    assert pl.DataFrame({"text": ["a"]}).select(opted_out(())).to_series().to_list() == [None]


def test_adding_keeps_comments_and_order_and_is_safe_to_repeat(tmp_path: Path) -> None:
    path = tmp_path / "opt-out.yaml"
    text = "# Asked by mail.\n- path: internal/**  # ours\n# Until 2027:\n- author: Jane Doe\n  reason: left\n"
    path.write_text(text)
    entry = Entry(id="a" * 64, known_as="x/y: #z\n- id: 1", reason="ticket 7")
    assert add(path, entry)
    after = path.read_text()
    assert after.startswith(text)
    assert read(path)[2] == entry
    assert len(read(path)) == 3
    assert not add(path, Entry(id="a" * 64, reason="another"))
    assert path.read_text() == after


@pytest.mark.parametrize("text", [None, "", "# Comments alone.\n", "# None yet.\n[]\n", "---\n# None."])
def test_adding_to_an_empty_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "opt-out.yaml"
    if text is not None:
        path.write_text(text)
        assert read(path) == ()
    add(path, Entry(path="first"))
    add(path, Entry(path="second"))
    assert [entry.path for entry in read(path)] == ["first", "second"]
    comments = re.findall("#.*", text or "")
    assert re.findall("#.*", path.read_text()) == comments


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: a\n", "found a mapping, needed a list of entries"),
        ("- a/b\n", "entry 1 is 'a/b'; needed a key and a value, such as `path: a/b`"),
        ("- path: a\n- pth: b\n", "entry 2: pth is not a key; did you mean path?"),
        ("- id: abc\n", "entry 1: id is 'abc'; string should match pattern"),
        ("- reason: x\n", "needed one of id, author, repository, path, or repository with path; found none of them"),
        ("- id: " + "a" * 64 + "\n  path: b\n", "found id and path"),
        ("- path: [\n", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_with_its_entry(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "opt-out.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        add(path, Entry(path="x"))
    assert path.read_text() == text


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: not found"):
        read(tmp_path / "absent.yaml")
