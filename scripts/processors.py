"""Run the tests of figures as other processors would compute them: `make processors`.

Each setting takes vector instructions away from the libraries that multiply (torch, oneDNN, MKL, CTranslate2) and gives
one thread or two. Every run has an order of its own and a busy process beside it. At the end stands a table: the
settings with what passed, and the bounds that leave the least room (tests/margins.py). Fails when a test does, or when
a bound leaves less than a third of its effect in any run.
Not covered: instructions that this processor does not have.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

from tests.margins import ROOM

LEAST_ROOM = 1 / 3
SHOWN = 15
PROCESSORS: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "CT2_FORCE_CPU_ISA": "AVX2"},
    "no vectors": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
        "CT2_FORCE_CPU_ISA": "GENERIC",
    },
}
THREADS = (1, 2)
Bound = tuple[str, str]  # the test's name and what it bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of the tests."""

    processor: str
    threads: int
    passed: int
    failures: tuple[str, ...]
    rooms: Mapping[tuple[str, str], float]
    seconds: float


@contextmanager
def busy_process() -> Iterator[None]:
    """Somebody else's work on the same cores."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def run(processor: str, threads: int, seed: int, paths: list[str]) -> Result:
    """Run every test of figures once, in the order of a seed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, busy_process():
        report = Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-m", "numeric and not drill", "-p", "no:cacheprovider"),
            *("-p", "randomly", f"--randomly-seed={seed}", "--randomly-dont-reset-seed", f"--junitxml={report}"),
            *paths,
        ]
        variables = {**os.environ, **PROCESSORS[processor], "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if not report.exists():
            sys.exit(done.stdout + done.stderr)
        cases = list(ElementTree.parse(report).iter("testcase"))
    broken = [each for each in cases if each.find("failure") is not None or each.find("error") is not None]
    failures = tuple(f"{each.get('classname')}::{each.get('name')}" for each in broken)
    return Result(
        processor=processor,
        threads=threads,
        passed=len(cases) - len(failures),
        failures=failures,
        rooms=least_by_bound(_recorded(cases)),
        seconds=time.monotonic() - began,
    )


def _recorded(cases: Iterable[ElementTree.Element]) -> Iterator[tuple[Bound, float]]:
    """Every bound that a test was held to, and the room that it left."""
    for case in cases:
        for each in case.iter("property"):
            if each.get("name") == ROOM:
                name, _, room = str(each.get("value")).rpartition("=")
                yield (str(case.get("name")), name), float(room)


def least_by_bound(rooms: Iterable[tuple[Bound, float]]) -> dict[Bound, float]:
    """The least room of each bound."""
    least: dict[Bound, float] = {}
    for bound, room in rooms:
        least[bound] = min(room, least.get(bound, room))
    return least


def table(results: list[Result]) -> str:
    """The settings with what passed and their least room, then the bounds that leave the least."""
    lines = [f"{'processor':<12} threads  runs  passed  failed  least room  slowest run"]
    for processor, threads in dict.fromkeys((each.processor, each.threads) for each in results):
        here = [each for each in results if (each.processor, each.threads) == (processor, threads)]
        least = min((room for each in here for room in each.rooms.values()), default=1.0)
        failed = sum(len(each.failures) for each in here)
        passed = sum(each.passed for each in here)
        slowest = max(each.seconds for each in here)
        lines.append(
            f"{processor:<12} {threads:>7} {len(here):>5} {passed:>7} {failed:>7} {least:>11.2f} {slowest:>10.0f} s"
        )
    rooms = least_by_bound(item for each in results for item in each.rooms.items())
    lines.append(f"\nleast room of {len(rooms)} bounds")
    for (test, name), room in sorted(rooms.items(), key=lambda item: item[1])[:SHOWN]:
        lines.append(f"  {room:5.2f}  {test}: {name}")
    lines += [f"failed: {name} ({each.processor}, {each.threads})" for each in results for name in each.failures]
    return "\n".join(lines)


def main() -> None:
    """Run every setting in turn, as often as asked."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="runs in all, the settings in turn (default: 10)")
    parser.add_argument("paths", nargs="*", help="files of tests; all when absent")
    asked = parser.parse_args()
    settings = list(product(PROCESSORS, THREADS))
    results: list[Result] = []
    for number in range(asked.runs):
        processor, threads = settings[number % len(settings)]
        results.append(run(processor, threads, number, asked.paths))
        last = results[-1]
        print(
            f"run {number + 1} of {asked.runs}: {processor}, {threads} threads: {last.passed} passed, "
            f"{len(last.failures)} failed, {last.seconds:.0f} s",
            flush=True,
        )
    print("\n" + table(results))
    short = any(room < LEAST_ROOM for each in results for room in each.rooms.values())
    if short or any(each.failures for each in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
