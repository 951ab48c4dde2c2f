"""Patterns mean what they mean to Git, which is asked itself, in time that stays in bounds."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.config import environment, validate
from components.core.errors import ConfigError
from components.data.cleaning.filters import refused_by_path
from components.data.config import CleanConfig, IngestConfig
from components.data.documents.path_patterns import Patterns, any_of, as_regex
from components.data.documents.programming_languages import language_of
from components.data.intake import opt_out
from components.data.sources.config import DirectorySource, S3Source
from components.data.sources.reading.tree import PathFilter

_WILD = (
    "*",
    "**",
    "?",
    "/",
    "/**/",
    "**/",
    "/**",
    "[a-c]",
    "[!a]",
    "[^b-]",
    r"[a-\]]",
    "[]a]",
    "[[:alpha:]]",
    "[[:no:]]",
)
_ODD = (
    "[[:]",
    "[a",
    "[a-",
    "[!",
    "[",
    "[\\",
    r"\*",
    r"\a",
    "\\",
    r"\/",
    r"**\/",
    "[/]",
    "[a/b]",
    "[z-a]",
    "[--0]",
    "é",
    "[é]",
)
_PLAIN = (
    "a",
    "b",
    "ab",
    "foo",
    "!",
    "#",
    " ",
    r"\ ",
    ".",
    "-",
    "]",
    "\t",
    "^",
    "$",
    "(",
    "|",
    "+",
    "{2}",
    "\r",
    "é",
    "[é]",
    "[--0]",
)
LINE = st.lists(st.sampled_from(_WILD + _ODD + _PLAIN + _PLAIN), min_size=1, max_size=6).map("".join)
_NAMES = (
    "a",
    "b",
    "ab",
    "aab",
    "c",
    "a b",
    "x",
    "é",
    "*",
    "[",
    "]",
    "a.b",
    "-",
    "foo",
    "fooa",
    "a]",
    "\\",
    "(",
    "#a",
    "!a",
    " ",
    "0",
)
NAME = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=2).map("".join)
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=4).map("/".join), min_size=20, max_size=40, unique=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return root


def ignored_by_git(root: Path, content: bytes, paths: list[str]) -> Iterator[bool]:
    """Whether Git would ignore each path, which need not be there."""
    (root / ".gitignore").write_bytes(content)
    options = ("-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "--stdin", "-z", "-v", "-n")
    asked = subprocess.run(
        ["git", "-C", str(root), *options], input="\0".join(paths).encode(), capture_output=True, env=environment()
    )
    answers = asked.stdout.split(b"\0")
    assert len(answers) == 4 * len(paths) + 1, asked.stderr
    for pattern in answers[2::4]:
        yield bool(pattern) and not pattern.startswith(b"!")


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(lines=st.lists(LINE, min_size=1, max_size=3), paths=PATHS)
def test_patterns_are_git_s_own(repository: Path, lines: list[str], paths: list[str]) -> None:
    content = "\n".join(lines).encode()
    patterns = Patterns.of_file(content)
    assert [patterns.cover(path) for path in paths] == list(ignored_by_git(repository, content, paths))


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(line=LINE, paths=PATHS)
def test_columns_say_what_paths_say(line: str, paths: list[str]) -> None:
    """But for characters of several bytes, where a column counts characters."""
    try:
        expression = as_regex(line)
    except ValueError:
        return
    found = pl.Series([path for path in paths if path.isascii()], dtype=pl.String)
    wanted = [Patterns.of_config([line]).cover(path) for path in found]
    assert found.str.contains(expression).to_list() == wanted


def test_what_people_write_is_read_as_git_reads_it(repository: Path) -> None:
    """A byte order mark, CRLF, spaces at the end, and other characters that Python takes for ends of lines."""
    paths = ["a.py", "b.py", "c.py ", "c.py", "d\u2028e.py", "d", "e.py", "f\x0bg.py", "f"]
    content = "\ufeffa.py\r\nb.py  \nc.py\\ \r\nd\u2028e.py\nf\x0bg.py\n\r\n#e.py\n".encode()
    patterns = Patterns.of_file(content)
    wanted = list(ignored_by_git(repository, content, paths))
    assert [patterns.cover(path) for path in paths] == wanted
    assert wanted == [True, True, True, False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("*a*a*a*a*a*ab", "a" * 4_000),
        ("*a" * 200 + "b", "a" * 4_000),
        ("**/a*a*a*ab/**/" * 20 + "b", "aaaaaaaab/" * 100),
        ("**/*a*/**/*a*/**/*a*/**/b", "aaaaaaaa/" * 100 + "c"),
        ("**" * 50 + "b", "a" * 4_000),
        ("?*" * 100 + "b", "a" * 4_000),
        ("[!b]*" * 100 + "b", "a" * 4_000),
    ],
)
def test_no_pattern_takes_powers_of_time(line: str, path: str) -> None:
    """Before, the first took 32 seconds for a name of 123 characters; here one that takes powers would never end."""
    assert not Patterns.of_config([line]).cover(path)
    assert not pl.Series([path]).str.contains(as_regex(line)).any()


@pytest.mark.parametrize("pattern", ["!", "", "# all", "[a", "a\\", "[[:no:]]", "  ", "/", "a\nb"])
def test_a_pattern_that_matches_nothing_is_one_line_of_the_config(pattern: str) -> None:
    for section, config_type, value in (
        ("ingest", IngestConfig, {"sources": [{"kind": "directory", "path": "x", "include": [pattern]}]}),
        ("ingest", IngestConfig, {"sources": [{"kind": "git", "url": "x", "exclude": [pattern]}]}),
        ("ingest", IngestConfig, {"sources": [{"kind": "s3", "bucket": "x", "exclude": [pattern]}]}),
        ("clean", CleanConfig, {"filters": {"vendored_paths": [pattern]}}),
    ):
        with pytest.raises(ConfigError) as error:
            validate(value, config_type, "params.yaml", section)
        assert ("\n" not in str(error.value) and ".gitignore" in str(error.value)) or "exception" in str(error.value)


def test_every_rule_of_paths_knows_both_separators() -> None:
    vendored = [
        "node_modules\\pad\\index.js",
        "web\\node_modules\\x.js",
        "a\\vendor/b.go",
        "x\\yarn.lock",
        "s\\j.min.js",
    ]
    kept = ["my_node_modules\\x.js", "a\\b.js"]
    table = pl.DataFrame({"path": [*vendored, *kept]})
    assert refused_by_path(table, CleanConfig().filters).to_list() == [True] * len(vendored) + [False] * len(kept)
    assert language_of("a.b\\c") is None and language_of("src.py\\a.js") == "javascript"
    path_filter = PathFilter(S3Source(bucket="b", include=("lib/",), exclude=("lib/gen/",)))
    assert path_filter.refusal("lib\\a.py") is None
    assert path_filter.refusal("lib\\gen\\a.py") == ("excluded", "")
    assert path_filter.refusal("lib\\.git\\a.py") == ("hidden", "")
    assert PathFilter(DirectorySource(path="x", include=("lib/",))).refusal("other\\a.py") == ("not_included", "")


@pytest.mark.parametrize("written", ["internal/secrets", "internal\\secrets", "/internal/**"])
def test_an_opt_out_knows_both_separators(written: str) -> None:
    table = pl.DataFrame(
        {"path": ["internal\\secrets\\a.py", "internal/secrets/a.py", "b.py"], "package": ["o\\r"] * 3}
    )
    for entry in (opt_out.Entry(path=written), opt_out.Entry(repository="o/r", path=written)):
        assert table.select(opt_out.opted_out([entry])).to_series().to_list() == ["path", "path", None]


def test_no_patterns_are_no_expression() -> None:
    assert any_of(()) is None and any_of(["a", "b/"]) is not None
