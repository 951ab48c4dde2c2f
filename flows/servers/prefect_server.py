"""Prefect's server behind the guard: `python -m flows.servers.prefect_server`, with its UI and background services.

Prefect itself asks for the key, on HTTP and on WebSockets, as its clients and its UI expect; without it answer only
the UI's own files, what the UI needs to ask for the key, and two health checks.
"""

from prefect.server.api.server import create_app
from prefect.settings import PREFECT_SERVER_API_PORT

from components.core.config import read_settings
from components.machine import service_keys
from components.machine.guard import Guard
from flows.servers.guarded import serve

APPLICATION = "flows.servers.prefect_server:application"
# Outside the API, and seconds of work for the loop that serves everybody.
SCHEMA = ("/openapi.json", "/docs", "/redoc")


def application() -> Guard:
    """Prefect's application, which reads PREFECT_* variables: see variables.server_variables."""
    settings = read_settings()
    key, port = service_keys.services_key(settings), PREFECT_SERVER_API_PORT.value()
    return Guard(create_app(final=True), settings.host, port, key, lambda path: path.startswith(SCHEMA))


def main() -> None:
    """Serve until the process is ended."""
    serve(APPLICATION, read_settings().host, PREFECT_SERVER_API_PORT.value())


if __name__ == "__main__":
    main()
