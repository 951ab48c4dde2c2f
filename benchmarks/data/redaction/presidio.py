"""Presidio's recognisers of e-mail and IP addresses, document by document, without a language model.

It checks the domain of an address against the public list of suffixes: here the one that tldextract brings along,
because the network is no part of the work. It only finds, and does not replace.
"""

import time
from pathlib import Path
from typing import Any

import polars as pl
import tldextract  # type: ignore[import-not-found]
from presidio_analyzer.predefined_recognizers import (  # type: ignore[import-not-found]
    EmailRecognizer,
    IpRecognizer,
)

from benchmarks.data.redaction import INPUT
from benchmarks.harness import Outcome


def run(folder: Path) -> Outcome:
    """Documents a second, and the spans of each."""
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    recognisers = {
        "email": (EmailRecognizer(), "EMAIL_ADDRESS"),
        "ip": (IpRecognizer(), "IP_ADDRESS"),
    }
    _find(pl.read_parquet(folder / INPUT, n_rows=20)["text"], recognisers)
    started = time.perf_counter()
    texts = pl.read_parquet(folder / INPUT)["text"]
    spans = _find(texts, recognisers)
    seconds = time.perf_counter() - started
    return Outcome(figure=texts.len() / seconds, answer=spans)


def _find(texts: pl.Series, recognisers: dict[str, tuple[Any, str]]) -> dict[str, list[list[tuple[int, int]]]]:
    """The spans by kind and document; a prefix length that Presidio takes with an address is left out."""
    spans: dict[str, list[list[tuple[int, int]]]] = {kind: [] for kind in recognisers}
    for text in texts:
        for kind, (recogniser, entity) in recognisers.items():
            found = recogniser.analyze(text, [entity], None)
            spans[kind].append(
                [(each.start, each.start + len(text[each.start : each.end].split("/")[0])) for each in found]
            )
    return spans
