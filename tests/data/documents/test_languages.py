"""A suffix says the language; the first lines may say another, and only where they are clear."""

import polars as pl
import pytest

from components.data.config import DEFAULT_LANGUAGES
from components.data.documents.programming_languages import CONTENT_LANGUAGE, is_foreign, language_of


def content_language(text: str) -> str | None:
    found = pl.DataFrame({"text": [text]}).select(CONTENT_LANGUAGE)
    return found.item()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("A.PY", "python"),
        ("types.pyi", "python"),
        ("x.mjs", "javascript"),
        ("x.jsx", "javascript"),
        ("x.d.ts", "typescript"),
        ("x.tsx", "typescript"),
        ("X.java", "java"),
        ("x.h", "c"),
        ("x.hpp", "cpp"),
        ("x.go", "go"),
        ("x.rs", "rust"),
        ("x.bash", "shell"),
        ("py", None),
        ("dir.py/Makefile", None),
        (".py", None),
        ("", None),
    ],
)
def test_the_suffix_says_the_language(path: str, language: str | None) -> None:
    assert language_of(path) == language


def test_a_language_with_a_suffix_may_pass_by_default() -> None:
    suffixes = ("py", "js", "ts", "java", "go", "rs", "c", "cc", "cs", "rb", "php", "sh", "sql", "md")
    assert {language_of(f"x.{suffix}") for suffix in suffixes} == set(DEFAULT_LANGUAGES)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("#!/usr/bin/python3.11\nx = 1\n", "python"),
        ("#!/usr/bin/env -S LANG=C python -u\n", "python"),
        ("#! /usr/bin/env bash\n", "shell"),
        ("#!/bin/sh -e\n", "shell"),
        ("#!/opt/local/bin/perl\n", "perl"),
        ("#!/usr/bin/env node\n", "javascript"),
        ("\n\n<!DOCTYPE html>\n<p>", "html"),
        ("\ufeff<?xml version='1.0'?>\n", "xml"),
        ("<!DOCTYPE TS>\n<TS>", "xml"),
        ("<?php echo 1;\n", "php"),
        ('{"cells": [], "nbformat": 4}\n', "json"),
        ("[1, 2,\n 3]\n", "json"),
        ("%PDF-1.4\n", "binary"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs"),
        ("diff --git a/x b/x\n", "diff"),
    ],
)
def test_clear_first_lines_speak_for_a_language(text: str, language: str) -> None:
    assert content_language(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import os\n",
        "#!/usr/bin/env unheard-of\n",
        "#![allow(dead_code)]\nfn main() {}\n",  # Rust
        "#!/bin/sh\n'''exec' /opt/venv/bin/python \"$0\" \"$@\"\n' '''\nimport sys\n",  # as pip writes long shebangs
        "{'name': 'module', 'depends': ['base']}\n",  # a manifest in Python
        "[print(x) for x in range(3)]\n",
        "{ let a = 1; }\n",
        '[1, 2, 3].forEach((x) => console.log(x));\n"done";\n',
        "<Component a={1} />\n",
        "// <!DOCTYPE html>\n",
        'page = """<html>"""\n',
        "# see #!/bin/sh\n",
    ],
)
def test_other_first_lines_say_nothing(text: str) -> None:
    assert content_language(text) is None


@pytest.mark.parametrize(
    ("content", "language", "foreign"),
    [
        ("html", "javascript", True),
        ("shell", "python", True),
        ("python", "python", False),
        (None, "python", False),
        ("html", "php", False),
        ("html", "markdown", False),
        ("javascript", "typescript", False),
        ("shell", "unknown", False),
    ],
)
def test_content_is_foreign_where_it_contradicts(content: str | None, language: str, foreign: bool) -> None:
    frame = pl.DataFrame(
        {"content": [content], "language": [language]}, schema={"content": pl.String, "language": pl.String}
    )
    assert frame.select(is_foreign(pl.col("content"), pl.col("language"))).item() is foreign
