"""The opt-out list: whose documents must not be trained on. One reader, one matcher, one writer.

Reads   a YAML list of entries, by default opt-out.yaml:
            - id: 64 hexadecimal digits             # sha256 of a text: that text, wherever copies of it lie
            - author: Jane Doe                      # a name or an e-mail address
            - repository: octocat/*                 # a repository, distribution or data set
            - path: internal/**/*.sql               # files, or all below a directory, as in .gitignore
            - repository: octocat/hello             # both have to match
              path: /secrets
        and to any of them `reason`, and `known_as` (the path that an id was found under), which are for people.
Writes  the same file with one entry more, comments and order kept (`add`).
Covers: `*` and `?` within a part of a name, `**` over several; a repository by the end of its address; exact copies.
Not covered: near copies of a text, whose ids differ (`overnight trace --document` shows them).
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from components.core import plain_yaml
from components.core.artifact import write_file
from components.core.config import explain
from components.core.errors import ConfigError
from components.data.documents.path_patterns import slashed, slashed_column

# Patterns of one regular expression: several hundred stay far below the size that the engine refuses.
_PATTERNS_AT_ONCE = 200


class Entry(BaseModel):
    """Documents to leave out: those that every key given here fits."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="sha256 of the text, hex")
    author: str | None = Field(None, min_length=1, description="name or e-mail address, any case")
    repository: str | None = Field(None, min_length=1, description="glob of its name or address, any case")
    path: str | None = Field(None, min_length=1, description="glob of the path within the repository")
    reason: str | None = Field(None, description="why; for people")
    known_as: str | None = Field(None, description="the path that the id was found under; for people")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        keys = [name for name in ("id", "author", "repository", "path") if getattr(self, name) is not None]
        if len(keys) != 1 and keys != ["repository", "path"]:
            listing = " and ".join(keys) or "none of them"
            raise ValueError(f"needed one of id, author, repository, path, or repository with path; found {listing}")
        return self

    @property
    def rule(self) -> tuple[str | None, ...]:
        """What is matched, without what is for people."""
        return self.id, self.author, self.repository, self.path


def read(path: Path) -> tuple[Entry, ...]:
    """The entries of a file in their order. Raises ConfigError with one line: file, entry, what was found."""
    return _entries(plain_yaml.parse(_content(path), str(path)), path)


def opted_out(entries: Sequence[Entry]) -> pl.Expr:
    """The kind of entry that a row fits (id, author, repository, path), null where none does, over the columns id,
    author, package and path; a column is needed only when an entry names it. A null fits nothing."""
    ids = [entry.id for entry in entries if entry.id]
    authors = [_author_pattern(entry.author) for entry in entries if entry.author]
    repositories = [_repository_pattern(entry.repository) for entry in entries if entry.repository and not entry.path]
    both = [
        rf"{_repository_pattern(entry.repository)}\n{_path_pattern(entry.path)}"
        for entry in entries
        if entry.repository and entry.path
    ]
    paths = [_path_pattern(entry.path) for entry in entries if entry.path and not entry.repository]
    package, path = _normal_address(pl.col("package")), slashed_column(pl.col("path"))
    kinds: list[tuple[str, pl.Expr]] = []
    if ids:
        kinds.append(("id", pl.col("id").is_in(ids)))
    if authors:
        kinds.append(("author", _any(pl.col("author"), authors)))
    if repositories:
        kinds.append(("repository", _any(package, repositories)))
    if both:
        kinds.append(("path", _any(pl.concat_str(package, pl.lit("\n"), path), both)))
    if paths:
        kinds.append(("path", _any(path, paths)))
    return pl.coalesce(
        *(pl.when(fits).then(pl.lit(kind)) for kind, fits in kinds), pl.lit(None, dtype=pl.String)
    ).alias("opted_out")


def add(path: Path, entry: Entry) -> bool:
    """Append an entry, unless one with the same rule is there; returns whether the file changed.

    Comments and the order of the entries stay. The file is made when it is absent, and is replaced as a whole.
    """
    if path.exists() and any(each.rule == entry.rule for each in read(path)):
        return False
    document = plain_yaml.parse_commented(_content(path), str(path)) if path.exists() else None
    line = CommentedSeq([entry.model_dump(exclude_none=True)])
    if document:
        document.append(line[0])
        document.fa.set_block_style()
        text = _dumped(document)
    else:
        # A file of comments alone: they belong to no value, and a round trip would lose them.
        before = plain_yaml.decode(_content(path), str(path)) if path.exists() else ""
        kept = "".join(each for each in before.splitlines(keepends=True) if each.strip() not in ("[]", "---"))
        text = kept + ("\n" if kept and not kept.endswith("\n") else "") + _dumped(line)
    write_file(path, text.encode())
    return True


def _content(path: Path) -> bytes:
    return plain_yaml.read(path, "make it (an empty file will do), or correct ingest.opt_out")


def _entries(document: Any, path: Path) -> tuple[Entry, ...]:
    if document is None:
        return ()
    if not isinstance(document, list):
        raise ConfigError(f"{path}: found {_kind(document)}, needed a list of entries such as `- path: internal/**`")
    entries = []
    for number, value in enumerate(document, start=1):
        if not isinstance(value, dict):
            entry = plain_yaml.shown(value)
            raise ConfigError(f"{path}: entry {number} is {entry!r}; needed a key and a value, such as `path: {entry}`")
        try:
            entries.append(Entry.model_validate(dict(value)))
        except ValidationError as error:
            raise ConfigError(explain(error, f"{path}: entry {number}", "", Entry)) from error
    return tuple(entries)


def _kind(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else type(value).__name__


def _dumped(document: CommentedSeq) -> str:
    yaml = YAML()
    yaml.width = 10**6
    yaml.allow_unicode = True
    target = io.StringIO()
    yaml.dump(document, target)
    return target.getvalue()


def _any(column: pl.Expr, patterns: Sequence[str]) -> pl.Expr:
    """True where a column matches any of the patterns."""
    groups = [patterns[start : start + _PATTERNS_AT_ONCE] for start in range(0, len(patterns), _PATTERNS_AT_ONCE)]
    return pl.any_horizontal(*(column.str.contains(f"^(?:{'|'.join(group)})$") for group in groups))


def _author_pattern(author: str) -> str:
    """A name or an address, alone or in `Name <address>` and in lists of those."""
    return rf"(?is:(?:.*[,;<])?\s*{pl.escape_regex(' '.join(author.split()))}\s*(?:[,;<>].*)?)"


def _repository_pattern(repository: str | None) -> str:
    """A glob of the last parts of an address: octocat/hello fits https://github.com/octocat/hello.git too."""
    name = re.sub(r"^[a-z+]+://|\.git/?$|^[^/@]+@", "", (repository or "").strip("/"))
    return rf"(?i:(?:[^\n]*/)?{_glob(slashed(name.replace(':', '/')))})"


def _path_pattern(path: str | None) -> str:
    """A glob of a path or of a directory above it; at any depth unless it starts with a slash."""
    path = slashed(path or "")
    depth = "" if path.startswith("/") else "(?:.*/)?"
    return rf"(?s:{depth}{_glob(path.strip('/'))}(?:/.*)?)"


def _glob(pattern: str) -> str:
    """A glob as a regular expression."""
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return "".join(special.get(part) or pl.escape_regex(part) for part in parts)


def _normal_address(column: pl.Expr) -> pl.Expr:
    """Addresses as host/owner/name: without scheme, user and .git."""
    return (
        column.str.replace(r"^[A-Za-z+]+://", "")
        .str.replace(r"^[^/@]+@", "")
        .str.replace(r"(?:\.git)?/*$", "")
        .str.replace(":", "/", literal=True)
        .str.replace_all("\\", "/", literal=True)
    )
