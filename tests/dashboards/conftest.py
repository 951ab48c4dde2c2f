"""Shared by the tests of pages: one browser."""

from collections.abc import Iterator

import pytest

from tests.dashboards.chromium import CHROMIUM, Chromium


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: scripts/debian_packages installs it where it can")
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
