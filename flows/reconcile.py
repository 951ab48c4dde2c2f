"""Keep serving equal to the environment file: a flow, and a loop (`python -m flows.reconcile`).

The loop lives through any exception, and asks neither Prefect nor MLflow; where a Prefect server answers, a change of
what serves is recorded there. It ends with the Ray that it joined, and with its supervisor (flows.servers.supervise),
which starts another one.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from typing import Any

import ray
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed

from components.core.config import Settings, read_settings
from components.core.errors import OvernightError, one_line
from components.core.process import die_with_parent
from components.machine import cluster
from components.release import reconcile as release_reconcile
from components.release.status import PERIOD_SECONDS, REASON_CHARACTERS, Status, say
from flows.running.params import read_params


@flow(name="reconcile", flow_run_name="reconcile", persist_result=False)
def reconcile() -> dict[str, Any]:
    """Make what serves equal to what Git says, once."""
    params = read_params()
    status = release_reconcile.reconcile(read_settings(), params.release.environment, params.release, params.serving)
    return status.model_dump(mode="json")


def follow(settings: Settings) -> None:
    """Look every period whether Git and serving agree, and make them; ends when the Ray that it joined has ended."""
    connection, last, said = contextlib.ExitStack(), None, ""
    while True:
        status: Status | None = None
        try:
            params = read_params()
            if not ray.is_initialized():
                connection.enter_context(release_reconcile.joined(settings, params.release.environment, params.release))
            status = release_reconcile.reconcile(settings, params.release.environment, params.release, params.serving)
            reason = ""
        except Exception as error:
            reason = one_line(error, REASON_CHARACTERS)
            say(settings, reason, serves=True, aloud=reason != said)
            if reason != said and not isinstance(error, OvernightError):
                traceback.print_exc()
        live = [each.live_commit for each in status.environments] if status else last
        if live != last or reason != said:
            _record(reason)
        last, said = live, reason
        if ray.is_initialized() and not cluster.answers():
            os._exit(1)  # Ray's own way out of a dead cluster waits, and may crash
        time.sleep(PERIOD_SECONDS)


def _record(reason: str) -> None:
    """Record a flow run in the Prefect that this process was told of, if it answers; in a thread, as it may be slow."""

    def record() -> None:
        state: State[Any] = Failed(message=reason) if reason else Completed(message="serving is what Git asks for")
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            client.create_flow_run(reconcile, name="reconcile", state=state)

    if get_current_settings().api.url is not None:  # else the client would start a server
        threading.Thread(target=record, daemon=True, name="record").start()


def main() -> None:
    """Follow Git until the supervisor ends, whose process id is the argument; without one, until this is ended."""
    if len(sys.argv) > 1:
        die_with_parent()
        if os.getppid() != int(sys.argv[1]):  # it ended before the line above
            return
    follow(read_settings())


if __name__ == "__main__":
    main()
