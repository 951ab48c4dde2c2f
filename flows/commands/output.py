"""What commands print: rows as a table or as JSON, the end of a cycle."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Rows as JSON, or as a table with the keys of the first one as its head."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None, padding=(0, 1))
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(*("" if value is None else Text(printable(str(value))) for value in row.values()))
    # A pipe has no width of its own, and 80 columns break a table into pieces.
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def printable(text: str) -> str:
    """Text that is shown as it is: names and messages of programs may hold a terminal's commands."""
    return "".join(each if each.isprintable() or each in "\n\xa0" else repr(each)[1:-1] for each in text)


def _against_deadline(result: dict[str, Any]) -> str:
    """How far before or after its deadline a cycle ended; nothing where it had little to do or was fixed."""
    if result["deadline_left_seconds"] is None:
        return ""
    left = result["deadline_left_seconds"]
    return f", {abs(left):.0f} s {'before' if left >= 0 else 'after'} the deadline"


def print_cycle(result: dict[str, Any]) -> None:
    """What a person wants to know when a cycle is over."""
    ran = sum(each["status"] == "ran" for each in result["stages"])
    print(f"{ran} of {len(result['stages'])} stages ran, {result['seconds']:.0f} s{_against_deadline(result)}")
    released, serving = result["release"], result["serving"]
    if released["decision"] != "not_asked":
        print(f"release: {released['decision']}; {'; '.join(released['reasons'])}")
    if serving:
        print(f"version {released['version']} answers in {serving['first_request_ms']:.0f} ms at {serving['url']}:")
        print(f"  {serving['prompt']!r} -> {serving['completion']!r}")
        print(
            f"  curl {serving['url']}/v1/completions -H 'content-type: application/json' "
            f"""-d '{{"model": "overnight", "prompt": "def add(a, b):", "max_tokens": 32}}'"""
        )
        print("  it serves until `make down`")
    print(f"report: {result['page']}")


def rounded(rows: list[dict[str, Any]], as_json: bool) -> list[dict[str, Any]]:
    """Figures as people read them; scripts get all digits."""
    if as_json:
        return rows
    return [{key: f"{each:.4g}" if isinstance(each, float) else each for key, each in row.items()} for row in rows]
