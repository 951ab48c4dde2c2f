"""The bench: ratios point the right way, sides run in turn in processes of their own, a failing side is named."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import Comparison, Outcome, row

OURS = """
from benchmarks.harness import Outcome
def run(folder):
    with (folder / "order").open("a") as order:
        order.write("{side} ")
    return Outcome(figure={figure}, answer={{"ids": [1, 2]}})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A comparison in a tree of its own, with one peer that is half as fast and one that fails."""
    folder = tmp_path / "benchmarks" / "toys" / "adding"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from benchmarks.harness import Comparison\n"
        "COMPARISON = Comparison(name='adding', unit='documents/s', peers={'slow': 2.0})\n"
        "def prepare(folder):\n    (folder / 'order').write_text('')\n"
        "def agree(folder, ours, peer):\n"
        "    if ours != peer:\n        raise ValueError('answers differ')\n"
        "    return {'order': (folder / 'order').read_text().split()}\n"
    )
    (folder / "ours.py").write_text(OURS.format(side="ours", figure=10.0))
    (folder / "slow.py").write_text(OURS.format(side="slow", figure=5.0))
    (folder / "broken.py").write_text("def run(folder):\n    raise SystemExit('no such column: text')\n")
    for name in ("__init__.py", "harness.py", "side.py"):
        (tmp_path / "benchmarks" / name).write_text((harness.ROOT / "benchmarks" / name).read_text())
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "PEERS", tmp_path / "absent")
    monkeypatch.setattr("benchmarks.__path__", [str(tmp_path / "benchmarks")])
    yield "benchmarks.toys.adding"
    for name in [each for each in sys.modules if each.startswith("benchmarks.toys")]:
        del sys.modules[name]


def test_sides_take_turns_and_the_ratio_says_how_much_better_ours_is(package: str) -> None:
    assert harness.comparisons("toys") == [package]
    (found,) = harness.compare(package, runs=2)
    assert found["agreement"] == {"order": ["ours", "slow", "ours", "slow"]}
    assert (found["ours"], found["peer_name"], found["peer"], found["ratio"]) == (10.0, "slow", 5.0, 2.0)
    assert found["goal_ratio"] == 2.0 and found["runs"] == 2


def test_a_side_that_fails_is_named_with_its_last_line(package: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"benchmarks\.toys\.adding\.broken failed: no such column: text"):
        harness.run_side(package, "broken", tmp_path, ours=True)


def test_fewer_seconds_are_better() -> None:
    comparison = Comparison(name="start", unit="s", peers={"peer": 1.0})
    found = row(comparison, "peer", [Outcome(figure=each) for each in (1.0, 2.0, 4.0)], [Outcome(figure=6.0)])
    assert found["ratio"] == 3.0 and found["ours"] == 2.0
    assert found["spread"] == {"ours": 1.5, "peer": 0.0}


def test_an_unknown_area_names_those_there_are() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "dta"], cwd=harness.ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("benchmarks: area 'dta' has no comparison; there are:")
