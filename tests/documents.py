"""The front page and the documents as the tests read them: blocks of shell, code in the text, links, headings."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.core.graph.closure import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
NOT_RUN = "# not run by the tests: "
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SEPARATORS = {";", "&&", "||", "|", "do", "done"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page; `reason` says why a block of shell is not run, None where it is."""

    page: Path
    language: str
    text: str

    @property
    def reason(self) -> str | None:
        """What the block's first line says."""
        first = self.text.splitlines()[0]
        return first.removeprefix(NOT_RUN) if first.startswith(NOT_RUN) else None

    def commands(self) -> Iterator[list[str]]:
        """Words of each command, in order."""
        for line in self.text.replace("\\\n", " ").splitlines():
            yield from commands_of(line)


def commands_of(line: str) -> Iterator[list[str]]:
    """Words of each command of a line of shell; a comment is none."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
        elif words:
            yield words
            words = []


def blocks(page: Path) -> list[Block]:
    """Fenced blocks from top to bottom."""
    return [Block(page=page, language=found[1], text=found[2]) for found in FENCE.finditer(page.read_text())]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def code(page: Path) -> list[str]:
    """What stands between back quotes in the text."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def links(page: Path) -> list[str]:
    """Targets of links and pictures that are no addresses on the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [each for each in found if not each.startswith(("http://", "https://"))]


def anchors(page: Path) -> set[str]:
    """The page's headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
