"""`python -m benchmarks AREA... [--runs N]`: compare, print a table, write reports/bench/<area>.json."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import compare, comparisons

REPORTS = Path("reports") / "bench"


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each printed."""
    for row in rows:
        print(
            f"{row['name']}: {row['ours']:.4g} {row['unit']}, {row['peer_name']} {row['peer']:.4g}, "
            f"ratio {row['ratio']:.2f} (goal {row['goal_ratio']:g}), {row['runs']} runs, "
            f"spread {row['spread']['ours']:.0%} and {row['spread']['peer']:.0%}; {row['agreement']}",
            flush=True,
        )
    return rows


def main() -> int:
    """Run every comparison of the area; 2 for an area that does not exist."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("areas", nargs="+", metavar="AREA", help="data, tokens, ...: a folder of benchmarks/")
    parser.add_argument("--runs", type=int, default=3, help="interleaved runs of each side")
    parser.add_argument("--only", default="", help="just the comparisons whose name holds this")
    arguments = parser.parse_args()
    try:
        packages = {area: [each for each in comparisons(area) if arguments.only in each] for area in arguments.areas}
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    for area, chosen in packages.items():
        rows = [row for package in chosen for row in told(compare(package, arguments.runs))]
        REPORTS.mkdir(parents=True, exist_ok=True)
        path = REPORTS / f"{area}.json"
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(f"report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
