"""Which language a file is written in: by its suffix, and by what its first lines say.

Covers: suffixes in wide use; shebangs; markup, JSON, patches, pointers and binary formats under another suffix.
Not covered: languages that share a suffix (.h is C, and its grammar check also accepts C++; .m, .pl, .v are unknown),
natural languages.
"""

from pathlib import PurePosixPath

import polars as pl

from components.data.documents.path_patterns import slashed

_SUFFIXES = {
    ".py": "python",
    ".pyi": "python",
    ".pyw": "python",
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".tsx": "typescript",
    ".java": "java",
    ".go": "go",
    ".rs": "rust",
    ".c": "c",
    ".h": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cxx": "cpp",
    ".hh": "cpp",
    ".hpp": "cpp",
    ".hxx": "cpp",
    ".cu": "cpp",
    ".cuh": "cpp",
    ".cs": "csharp",
    ".rb": "ruby",
    ".php": "php",
    ".sh": "shell",
    ".bash": "shell",
    ".sql": "sql",
    ".md": "markdown",
}
# The program a shebang names, without its version.
_INTERPRETERS = {
    "python": "python",
    "pypy": "python",
    "node": "javascript",
    "nodejs": "javascript",
    "deno": "javascript",
    "bun": "javascript",
    "sh": "shell",
    "bash": "shell",
    "dash": "shell",
    "ash": "shell",
    "ksh": "shell",
    "zsh": "shell",
    "ruby": "ruby",
    "php": "php",
    "perl": "perl",
    "lua": "lua",
    "tclsh": "tcl",
    "wish": "tcl",
    "awk": "awk",
    "gawk": "awk",
    "make": "make",
    "rscript": "r",
    "osascript": "applescript",
}
_SHEBANG = r"(?i)^#![ \t]*\S*?(?:/env[ \t]+(?:-\S+[ \t]+|\w+=\S*[ \t]+)*(?:\S*/)?|/)([a-z]+)[\d.]*(?:[ \t\r\n]|$)"
# A script that hands itself to another interpreter: `#!/bin/sh` and then `'''exec' /path/to/python "$0" "$@"`.
_HANDED_ON = r"^#![^\n]*\n(?:[^\n]*\n){0,2}?[^\n]*\bexec\b"
# What a text starts with that is none of the languages above, whatever its suffix.
_OPENINGS = (
    (r"(?i)^(?:<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>])", "html"),
    (r"(?i)^(?:<\?xml|<!doctype\s|<svg[\s>])", "xml"),
    (r"(?i)^<\?php\b", "php"),
    (r"^(?:%PDF-|%!PS|\{\\rtf|GIF8[79]a|PK\x03\x04|\x7fELF|BZh\d|!<arch>\n)", "binary"),
    (r"^version https://git-lfs\.github\.com/spec/", "git-lfs"),
    (r"^diff --git a/", "diff"),
)
_JSON_STARTS = r"^(?:\{\s*(?:\"(?:[^\"\\\n]|\\.)*\"\s*:|\}\s*$)|\[\s*(?:[\"\[{\]]|-?\d))"
_JSON_ENDS = r"[\]}]\s*$"
_HEAD_CHARACTERS = 1_024
# Languages whose files rightly open like one of the others, or name an interpreter of another.
_ALIKE = {("php", "html"), ("markdown", "html"), ("markdown", "xml"), ("typescript", "javascript")}


def language_of(path: str) -> str | None:
    """The language that a file's suffix stands for; None for a suffix that is not known."""
    return _SUFFIXES.get(PurePosixPath(slashed(path)).suffix.lower())


def _content_language() -> pl.Expr:
    text = pl.col("text")
    start = text.str.head(_HEAD_CHARACTERS).str.strip_chars_start("\ufeff \t\r\n")
    interpreter = start.str.extract(_SHEBANG).str.to_lowercase()
    guess = (
        pl.when(~start.str.contains(_HANDED_ON))
        .then(interpreter.replace_strict(_INTERPRETERS, default=None, return_dtype=pl.String))
        .otherwise(None)
    )
    json = start.str.contains(_JSON_STARTS) & text.str.tail(_HEAD_CHARACTERS).str.contains(_JSON_ENDS)
    guess = pl.when(json).then(pl.lit("json")).otherwise(guess)
    for pattern, language in reversed(_OPENINGS):
        guess = pl.when(start.str.contains(pattern)).then(pl.lit(language)).otherwise(guess)
    return guess


# The language that the first lines of `text` speak for; null when they say nothing, as they mostly do.
CONTENT_LANGUAGE = _content_language()


def is_foreign(content_language: pl.Expr, language: pl.Expr) -> pl.Expr:
    """True where the content speaks for another language than the document's; never for unknown languages."""
    alike = pl.any_horizontal(
        (language == of_path) & (content_language == of_content) for of_path, of_content in sorted(_ALIKE)
    )
    return (content_language != language).fill_null(False) & (language != "unknown") & ~alike
