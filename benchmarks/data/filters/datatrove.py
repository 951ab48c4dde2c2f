"""The same rules as steps of a pipeline of datatrove, run by its executor in this one process."""

import ast
import math
import re
import runpy
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
from datatrove.data import Document  # type: ignore[import-not-found]
from datatrove.executor.local import LocalPipelineExecutor  # type: ignore[import-not-found]
from datatrove.pipeline.filters import LambdaFilter  # type: ignore[import-not-found]

from benchmarks.data.filters import INPUT
from benchmarks.harness import ROOT, Outcome

_VENDORED = {
    *("vendor", "_vendor", "vendored", "_vendored", "vendored_packages", "third_party", "third-party", "thirdparty"),
    *("thirdparty_files", "3rdparty", "node_modules", "bower_components", "jspm_packages", "site-packages"),
    *("dist-packages", ".venv", "Pods", "Carthage", "Godeps"),
}
_ENCODED = re.compile(
    r"(?:/{0,2}[A-Za-z0-9+]){64,}={0,2}"
    r"|(?:\\x[0-9a-fA-F]{2}){8,}|(?:\\u[0-9a-fA-F]{4}){8,}|(?:\\[0-7]{1,3}){8,}"
    r"|(?:0[xX][0-9a-fA-F]{1,16}[uUlL]{0,3}\s*,\s*){8,}|(?:[0-9]{1,3}\s*,\s*){64,}"
)
_DIGIT = re.compile("[0-9]")
_LONG_WORD = re.compile("[!-~]{128,}")
# The same expressions, in the spelling of Python's re; the module needs polars alone, its package more.
_GENERATED = runpy.run_path(str(ROOT / "components" / "data" / "generated.py"))
_OPENING = re.compile(_GENERATED["OPENING"].replace(r"\x{feff}", "\ufeff").replace(r"\z", r"\Z"))
_MARKER = re.compile(_GENERATED["MARKER"])


def is_own(document: Any) -> bool:
    return not _VENDORED.intersection(document.metadata["path"].split("/")[:-1])


def is_large(document: Any) -> bool:
    return len(document.text.encode()) >= 64


def is_written(document: Any) -> bool:
    head = "\n".join(document.text[:4096].split("\n")[:30])
    opening = _OPENING.match(head)
    return opening is None or not _MARKER.search(opening.group())


def has_short_lines(document: Any) -> bool:
    lines = document.text.split("\n")
    return sum(map(len, lines)) / len(lines) <= 100


def has_no_long_line(document: Any) -> bool:
    return max(map(len, document.text.split("\n"))) <= 1000


def is_not_encoded(document: Any) -> bool:
    runs = (match.group() for match in _ENCODED.finditer(document.text))
    return sum(len(run) for run in runs if _DIGIT.search(run)) / len(document.text) <= 0.5


def is_not_random(document: Any) -> bool:
    words = _LONG_WORD.findall(document.text)
    return sum(len(word) for word in words if _entropy(word) > 5.3) / len(document.text) <= 0.1


def _entropy(word: str) -> float:
    shares = [count / len(word) for count in Counter(word).values()]
    return -sum(share * math.log2(share) for share in shares)


def is_alphanumeric(document: Any) -> bool:
    found = sum(map(str.isalnum, document.text))
    if not document.text.isascii():  # accents that stand on letters, which alone are no letters to Python
        found += sum(unicodedata.category(each)[0] == "M" for each in document.text)
    return found / len(document.text) >= 0.25


def parses(document: Any) -> bool:
    try:
        ast.parse(document.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


_RULES: dict[str, Callable[[Any], bool]] = {
    "vendored": is_own,
    "too_small": is_large,
    "generated": is_written,
    "mean_line_too_long": has_short_lines,
    "line_too_long": has_no_long_line,
    "encoded": is_not_encoded,
    "high_entropy": is_not_random,
    "few_alphanumeric": is_alphanumeric,
    "syntax_error": parses,
}


def run(folder: Path) -> Outcome:
    """Documents a second of the processor, and the reasons."""
    rows = pl.read_parquet(folder / INPUT).select("path", "text").rows()
    documents = [Document(text=text, id=path, metadata={"path": path}) for path, text in rows]
    reasons: dict[str, str] = {}
    kept: list[str] = []

    def named(reason: str, rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def judge(document: Any) -> bool:
            if rule(document):
                return True
            reasons[document.id] = reason
            return False

        return judge

    def collect(data: Iterable[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        for document in data:
            kept.append(document.id)
            yield document

    steps = [documents, *(LambdaFilter(named(reason, rule)) for reason, rule in _RULES.items()), collect]
    executor = LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=str(folder / f"log-{time.time_ns()}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.process_time()
        executor.run()
        seconds = time.process_time() - started
    if len(kept) + len(reasons) != len(documents):
        raise ValueError(f"{len(kept)} kept and {len(reasons)} dropped of {len(documents)} documents")
    return Outcome(figure=len(documents) / seconds, answer={"reasons": reasons})
