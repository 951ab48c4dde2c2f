"""Say why each file would be kept, dropped or quarantined, and what would be redacted in it.

Covers: the rules of check_raw, the filters, the evaluation items and the redaction of clean, by the code of the stages.
Not covered: duplicates, which depend on the other documents, and the licence, which a file does not state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from components.core.errors import DataError
from components.data.config import CheckRawConfig, CleanConfig
from components.data.decontaminate import Items, mark, read_items
from components.data.documents import SCHEMA, document_id
from components.data.filters import apply_filters
from components.data.languages import language_of
from components.data.measures import document_statistics
from components.data.redact import redact_text
from components.data.rules import violations


def explain(
    paths: Sequence[Path], check: CheckRawConfig | None = None, clean: CleanConfig | None = None
) -> list[dict[str, Any]]:
    """[{path, decision: keep|drop|quarantine, reasons [rule], redactions [{kind, start, end}]}] in the given order.

    Spans are in characters of the file's text. Raises DataError for a file that cannot be read.
    """
    check = check or CheckRawConfig.model_validate({})
    clean = clean or CleanConfig.model_validate({})
    items = read_items(clean.decontaminate)
    return [_explain(path, check, clean, items) for path in paths]


def _explain(path: Path, check: CheckRawConfig, clean: CleanConfig, items: Items) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give paths of readable files") from error
    except UnicodeDecodeError:
        return _answer(path, "drop", ["not_utf8"])
    if not text.strip():
        return _answer(path, "drop", ["empty"])
    document = _document(path, text, check.licences[0])
    broken = violations(document_statistics(document, check.licences), "raw", check)
    if broken.height:
        return _answer(path, "quarantine", broken["rule"].to_list())
    filtered = apply_filters(document, clean.filters)
    reason = mark(filtered, items, clean.decontaminate.min_share)["reason"][0]
    if reason is not None:
        return _answer(path, "drop", [reason])
    found = redact_text(text, clean.redact)[1]
    spans = [{"kind": each.kind, "start": each.start, "end": each.end} for each in found]
    return _answer(path, "keep", [], spans)


def _document(path: Path, text: str, licence: str) -> pl.DataFrame:
    """A file as the one row of a table of documents, under a licence that passes."""
    language = language_of(path.name) or "unknown"
    size = len(text.encode())
    row = (document_id(text), text, path.as_posix(), "", "", licence, language, "directory", size)
    return pl.DataFrame([row], schema=SCHEMA, orient="row")


def _answer(path: Path, decision: str, reasons: list[str], redactions: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"path": str(path), "decision": decision, "reasons": reasons, "redactions": list(redactions)}
