"""A tiny random model that a real engine loads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.random_model import write_random_model


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The random model of a seed, written once a session."""
    root = tmp_path_factory.mktemp("models")

    def make(seed: int) -> Path:
        out = root / str(seed)
        return out if out.exists() else write_random_model(out, seed)

    return make
