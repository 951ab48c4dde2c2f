"""Environment variables for the tools that flows drive, derived from the settings in one place."""

from components.core import services
from components.core.config import Settings
from components.core.telemetry import TELEMETRY_OFF


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
    return variables
