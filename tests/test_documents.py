"""What the front page and the documents name exists: commands, options, targets, parameters, files, settings, links.

tests/test_documents_run.py runs their commands.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from pydantic import BaseModel

from components.core import plain_yaml
from components.core.config import Settings
from components.core.graph.closure import ROOT
from flows.commands.cli import app
from flows.running.params import profile_names, tree
from tests.documents import PAGES, anchors, blocks, code, commands_of, links, prose

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
LANGUAGES = {"sh", "yaml", "mermaid", ""}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PLACEHOLDER = re.compile(r"[A-Z_]+|<.*>")
COMMANDS = typer.main.get_command(app)
WIDTH = 120
# Written while something runs, so a checkout has none of it.
MADE = ("data/", "models/", "reports/", ".overnight", ".venv", "dvc.lock")
SUFFIXES = (".py", ".json", ".yaml", ".md", ".csv", ".jsonl", ".parquet", ".html", ".toml", ".txt", ".lock")


def objection(words: Sequence[str]) -> str | None:
    """What is wrong with a command of ours; None for what is right, and for programs of others."""
    program, *arguments = words
    if program == "make":
        unknown = [each for each in arguments if "=" not in each and each not in TARGETS]
        return f"make has no target {unknown[0]}" if unknown else None
    if program == "python" and arguments[:1] == ["-m"]:
        place = ROOT.joinpath(*arguments[1].split("."))
        known = place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
        return None if known else f"there is no module {arguments[1]}"
    if program != "overnight" or arguments in ([], ["--help"]):
        return None
    if (command := COMMANDS.commands.get(arguments[0])) is None:  # type: ignore[attr-defined]
        return f"overnight has no command {arguments[0]}"
    try:
        with command.make_context(arguments[0], filled(arguments[1:])):
            pass
    except typer.TyperException as error:
        return error.format_message()
    return next(filter(None, map(objection_to_value, arguments, arguments[1:])), None)


def filled(arguments: Sequence[str]) -> list[str]:
    """Arguments with a number in the place of a word that stands for one of the reader's."""
    return ["1" if PLACEHOLDER.fullmatch(each) else each for each in arguments]


def objection_to_value(option: str, value: str) -> str | None:
    """What is wrong with a profile, a stage or a parameter."""
    if PLACEHOLDER.fullmatch(value):
        return None
    if option == "--profile" and value not in profile_names(ROOT / "profiles"):
        return f"there is no profile {value}"
    if option == "--until" and value not in tree().model_fields:
        return f"there is no stage {value}"
    if option == "--set" and not is_parameter(value.partition("=")[0]):
        return f"there is no parameter {value}"
    return None


def is_parameter(key: str) -> bool:
    """Whether params.yaml has a key such as pretrain.update.optimizer."""
    kind: Any = tree()
    for name in key.split("."):
        models = [each for each in (kind, *get_args(kind)) if isinstance(each, type) and issubclass(each, BaseModel)]
        fields = [each.model_fields[name] for each in models if name in each.model_fields]
        if not fields:
            return False
        kind = fields[0].annotation
    return True


def unknown(text: str, page: Path) -> str | None:
    """What kind of name a page has between back quotes that is none; None for all else."""
    word = re.split(r"[=:]", text)[0]
    folder, section = word.partition("/")[0], word.partition(".")[0]
    if re.fullmatch(r"OVERNIGHT_[A-Z_]+", word):
        return None if word.removeprefix("OVERNIGHT_").lower() in Settings.model_fields else "no setting"
    if re.fullmatch(r"[\w.-]+(/[\w.-]*)+", word) and (ROOT / folder).is_dir() and not word.startswith(MADE):
        there = any(place.joinpath(word).exists() for place in (ROOT, page.parent))
        return None if there else "no file or folder"
    if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", word) and section in tree().model_fields and not word.endswith(SUFFIXES):
        return None if is_parameter(word) else "no parameter"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_ours(name: str) -> None:
    """In blocks of shell and in the text."""
    page = ROOT / name
    found = [words for block in blocks(page) if block.language == "sh" for words in block.commands()]
    found += [words for text in code(page) if text.startswith(("overnight ", "make ")) for words in commands_of(text)]
    wrong = {" ".join(words): said for words in found if (said := objection(words))}
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_exists(name: str) -> None:
    """Files, parameters and settings in the text."""
    wrong = {text: said for text in code(ROOT / name) if (said := unknown(text, ROOT / name))}
    assert not wrong


@pytest.mark.parametrize("text", ["components/cor/config.py", "pretrain.sed", "OVERNIGHT_GATEWAY_PROT=1"])
def test_what_does_not_exist_is_told(text: str) -> None:
    assert unknown(text, PAGES[0])


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_names_every_document() -> None:
    listed = {link.partition("#")[0] for link in links(ROOT / "docs" / "README.md")}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("README", "docs/"))])
def test_lines_wrap_outside_tables(name: str) -> None:
    lines = prose(ROOT / name).splitlines()
    assert not [line for line in lines if len(line) > WIDTH and not line.startswith("|")]


@pytest.mark.parametrize("name", NAMES)
def test_blocks_say_what_they_are(name: str) -> None:
    """A block of commands is marked as one, or the tests would pass over it."""
    for block in blocks(ROOT / name):
        assert block.language in LANGUAGES, block.text
        assert block.language == "sh" or not re.search(r"^(overnight|make|dvc|curl) ", block.text, re.MULTILINE)
        assert block.reason is None or len(block.reason) > 10, block.text


def test_the_parameters_that_are_shown_are_parameters() -> None:
    shown = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
    assert shown
    for block in shown:
        tree().model_validate_json(json.dumps(plain_yaml.parse(block.text, block.page.name)))


@pytest.mark.parametrize(
    "line",
    [
        "overnight cycel",
        "overnight cycle --hour 3",
        "overnight promote one --to production",
        "overnight cycle --profile h201-day",
        "overnight cycle --until pretraining && overnight status",
        "overnight cycle --set pretrain.sed=1",
        "make cycle; make teste",
        "python -m benchmarks.gpu_pretraining",
    ],
)
def test_a_command_that_is_none_is_told(line: str) -> None:
    assert [said for words in commands_of(line) if (said := objection(words))]
