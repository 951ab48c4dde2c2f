"""Set before any test imports torch or ray: what those read when they are imported."""

import os

import pytest

# Small models on shared cores: a second thread that spins while it waits made some tests twenty times slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import components  # noqa: F401  telemetry off, Ray on loopback


def pytest_configure(config: pytest.Config) -> None:
    """Google's parts of Great Expectations warn on import that a package is absent which nothing here uses."""
    config.addinivalue_line("filterwarnings", "ignore:Please install grpcio-status:ImportWarning")
