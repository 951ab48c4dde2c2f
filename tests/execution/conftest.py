"""Shared by the tests of the sandbox: a jail behind each kind of wall that can be built here."""

import os
from collections.abc import Iterator

import pytest

from components.execution.runner import BACKENDS, Backend, Runner, WallError, open_runner


@pytest.fixture(scope="module", params=BACKENDS)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """A jail behind one kind of wall."""
    backend: Backend = request.param
    if backend == "namespaces" and os.getuid() != 0:
        pytest.skip("needs root")
    try:
        with open_runner(backend) as opened:
            yield opened
    except WallError as error:
        pytest.skip(f"not possible here: {error}")
