"""Environment variables for the tools that flows drive, derived from the settings in one place."""

from components.core.config import Settings
from components.core.telemetry import TELEMETRY_OFF
from components.machine import service_keys, services
from components.machine.guard import USER


def prefect_api_url(settings: Settings) -> str | None:
    """The Prefect API to record flow runs in: the configured one, else this workspace's server, else None."""
    if settings.prefect_url:
        return settings.prefect_url
    server = services.running(settings, "prefect")
    return f"{server.url}/api" if server else None


def tool_variables(settings: Settings) -> dict[str, str]:
    """What Prefect and MLflow read when they are imported."""
    state = settings.state.resolve()
    variables = TELEMETRY_OFF | {
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_LOCAL_STORAGE_PATH": str(state / "prefect" / "results"),
        # The terminal shows the cycle's own progress; whole logs stay in the API.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "30",
        "PREFECT_CLI_PROMPT": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "OVERNIGHT_STATE": str(settings.state),
    }
    if api := prefect_api_url(settings):
        variables["PREFECT_API_URL"] = api
    return variables | _credentials(settings)


def _credentials(settings: Settings) -> dict[str, str]:
    """The key for the servers of this workspace; a configured one elsewhere never sees it."""
    password = service_keys.services_key(settings)
    prefect, mlflow = services.running(settings, "prefect"), services.running(settings, "mlflow")
    variables = {}
    if settings.prefect_url is None or (prefect and settings.prefect_url.startswith(f"{prefect.url}/")):
        variables["PREFECT_API_AUTH_STRING"] = f"{USER}:{password}"
    if mlflow and settings.mlflow_url and settings.mlflow_url.rstrip("/") == mlflow.url:
        variables |= {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": password}
    return variables


def server_variables(settings: Settings, port: int) -> dict[str, str]:
    """What a Prefect server of this workspace reads: where it listens, who may ask, its pages' own two names."""
    own = [f"http://{name}:{port}" for name in dict.fromkeys((settings.host, "127.0.0.1", "localhost"))]
    return tool_variables(settings) | {
        "PREFECT_SERVER_API_HOST": settings.host,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{service_keys.services_key(settings)}",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(own),
        "PREFECT_UI_API_URL": f"{own[0]}/api",
    }
