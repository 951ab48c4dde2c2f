"""Run an application behind the guard on the loopback address.

Prefect and MLflow would each run their own server without a look at who asks. Their files are state: private ones.
"""

import os

import uvicorn

PRIVATE = 0o077


def serve(application: str, host: str, port: int) -> None:
    """Serve the application that a factory, MODULE:FUNCTION, makes, until the process is ended."""
    os.umask(PRIVATE)
    uvicorn.run(application, factory=True, host=host, port=port, log_level="error", lifespan="on")
