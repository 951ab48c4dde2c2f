"""Keep serving equal to the environment file: a flow, and a loop that calls it (`python -m flows.reconcile`)."""

import time
from typing import Any

from prefect import flow

from components.core import cluster
from components.core.config import read_settings
from components.core.errors import OvernightError
from components.release import reconcile as release_reconcile
from flows.params import read_params

PERIOD_SECONDS = 15.0


@flow(name="reconcile", flow_run_name="reconcile", persist_result=False)
def reconcile() -> dict[str, Any]:
    """Make what serves equal to what Git says, once."""
    params = read_params()
    status = release_reconcile.reconcile(read_settings(), params.release, params.serving)
    return status.model_dump(mode="json")


def main() -> None:
    """Look every 15 seconds whether Git and serving agree, and run the flow when they do not."""
    settings = read_settings()
    print("reconciling", flush=True)
    said = ""
    while True:
        try:
            params = read_params()
            if cluster.address(settings) is None:
                raise OvernightError("no Ray runs that could serve; waiting for one")
            with cluster.connect():
                while release_reconcile.agrees(settings, params.release, params.serving):
                    time.sleep(PERIOD_SECONDS)
                reconcile()
            said = ""
        except OvernightError as error:
            if str(error) != said:
                said = str(error)
                print(said, flush=True)
            time.sleep(PERIOD_SECONDS)


if __name__ == "__main__":
    main()
