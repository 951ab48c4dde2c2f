"""MLflow's server behind the guard, over the SQLite file that a cycle writes to.

Every request shows the key but those for /health and /version; a browser asks its user for it. MLflow alone would let
any user of the machine delete runs, or register a model that is then served.
Not covered: MLflow's jobs (scorers of its GenAI part), which are other processes that would need the key too.
"""

import os

from mlflow.environment_variables import MLFLOW_SERVER_ENABLE_JOB_EXECUTION
from mlflow.server import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
from mlflow.server.fastapi_app import app
from mlflow.server.handlers import initialize_backend_stores

from components.core.config import read_settings
from components.machine import service_keys
from components.machine.guard import Guard
from components.release.registry import database_uri, first_use, local_artifact_root
from flows.servers.guarded import serve

APPLICATION = "flows.servers.mlflow_server:application"
OPEN = ("/health", "/version")


def application() -> Guard:
    """MLflow's application over this workspace's database, which is made or migrated first."""
    settings = read_settings()
    database, artifacts = database_uri(settings), local_artifact_root(settings)
    os.environ |= {BACKEND_STORE_URI_ENV_VAR: database, ARTIFACT_ROOT_ENV_VAR: artifacts}
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION.set(False)
    with first_use(settings):
        initialize_backend_stores(database, database, artifacts)
    return Guard(
        app, settings.host, settings.mlflow_port, service_keys.services_key(settings), lambda path: path not in OPEN
    )


def main() -> None:
    """Serve until the process is ended."""
    settings = read_settings()
    serve(APPLICATION, settings.host, settings.mlflow_port)


if __name__ == "__main__":
    main()
