"""A Prefect API for one command, where no server runs: `python -m flows.servers.temporary_server HOST PORT`.

Prefect would start one by itself; this one starts while the rest is still importing, and dies with its parent, so
that a killed cycle leaves no server behind.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx

from components.core.config import Settings, environment
from components.core.errors import OvernightError
from components.core.private import folder
from components.core.process import die_with_parent
from components.machine.services import free_port, log_path
from flows.servers import guarded
from flows.servers.variables import prefect_api_url, server_variables

# By name: this module is loaded by commands that need no server.
APPLICATION = "flows.servers.prefect_server:application"
# As Prefect's own temporary server: no pages, no background services but those that record runs.
VARIABLES = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
START_TIMEOUT_SECONDS = 120.0


@contextlib.contextmanager
def starting(settings: Settings) -> Iterator["Starting"]:
    """A Prefect API being started for a block, or the one that is there already."""
    api = prefect_api_url(settings)
    if api is not None:
        yield Starting(api, None)
        return
    port = free_port(settings.host)
    log = log_path(settings, "prefect-temporary")
    folder(settings.state)
    folder(log.parent)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.servers.temporary_server", settings.host, str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(), **server_variables(settings, port), **VARIABLES},
        )
    try:
        yield Starting(f"http://{settings.host}:{port}/api", process)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Starting:
    """A server on its way up."""

    def __init__(self, api_url: str, process: subprocess.Popen[bytes] | None) -> None:
        self.api_url = api_url
        self._process = process

    def wait(self) -> None:
        """Return once the API answers. Raises OvernightError when it ends or stays silent for two minutes."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                if httpx.get(f"{self.api_url}/health", timeout=2).is_success:
                    return
            except httpx.TransportError as error:
                if self._process is None:
                    raise OvernightError(
                        f"no Prefect server answers at {self.api_url} ({error}); "
                        "start it, or unset OVERNIGHT_PREFECT_URL"
                    ) from error
            if self._process is not None and self._process.poll() is not None:
                raise OvernightError(f"the temporary Prefect server exited with {self._process.returncode}")
            if time.monotonic() > deadline:
                raise OvernightError(f"the Prefect server at {self.api_url} was not ready after two minutes")
            time.sleep(0.1)


if __name__ == "__main__":
    die_with_parent()
    guarded.serve(APPLICATION, sys.argv[1], int(sys.argv[2]))
