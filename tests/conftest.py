"""Set before any test imports torch or ray: what those read when they are imported."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Small models on shared cores: a second thread that spins while it waits made some tests twenty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

from hypothesis import settings

import components  # noqa: F401  telemetry off, Ray on loopback
from tests.margins import Margins

settings.register_profile("overnight", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("overnight")

# The file that runs the whole stack in a checkout of its own takes longest: it starts first.
LONGEST = "tests/test_cycle.py"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; a file that tells one story keeps its order, whatever was shuffled."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    places: dict[Path, list[int]] = {}
    for place, item in enumerate(items):
        if item.get_closest_marker("in_order"):
            places.setdefault(item.path, []).append(place)
    for story in places.values():
        told = sorted((items[place] for place in story), key=_line_of)
        for place, item in zip(story, told, strict=True):
            items[place] = item


def _line_of(item: pytest.Item) -> int:
    return item.location[1] or 0


def pytest_configure(config: pytest.Config) -> None:
    """Google's parts of Great Expectations warn on import that a package is absent which nothing here uses."""
    config.addinivalue_line("filterwarnings", "ignore:Please install grpcio-status:ImportWarning")


@pytest.fixture
def margins(record_property: Callable[[str, object], None]) -> Margins:
    """Bounds of figures that differ from processor to processor."""
    return Margins(record_property)
