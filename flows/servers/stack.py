"""What `overnight up` starts, `down` stops and `status` shows: everything on loopback, nothing left running after."""

import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from components.core.config import Settings
from components.machine import cluster, services
from components.machine.services import Service
from components.release import status as release_status
from flows.servers.subprocesses import run_tool
from flows.servers.variables import server_variables, tool_variables

POOL = "overnight"
TITLES = {"prefect": "Prefect", "mlflow": "MLflow", "metrics": "the cycle's metrics"}
VERSIONS = {name: version(name) for name in ("prefect", "mlflow", "ray")}
# Later ones need earlier ones; `down` goes the other way.
ORDER = ("prefect", "mlflow", cluster.SERVICE, "worker", "reconcile", "metrics")


def _answers(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            return httpx.get(url, timeout=2).is_success
        except httpx.TransportError:
            return False

    return ready


def _tool(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).with_name(name))


def start_prefect(settings: Settings) -> Service:
    """Prefect's server with its UI and background services."""
    url = f"http://{settings.host}:{settings.prefect_port}"
    variables = server_variables(settings, settings.prefect_port)
    return _start(
        settings, "prefect", "flows.servers.prefect_server", settings.prefect_port, url, f"{url}/api/health", variables
    )


def start_mlflow(settings: Settings) -> Service:
    """MLflow's server over the same SQLite file that a cycle without a server writes to."""
    url = f"http://{settings.host}:{settings.mlflow_port}"
    return _start(settings, "mlflow", "flows.servers.mlflow_server", settings.mlflow_port, url, f"{url}/health")


def _start(
    settings: Settings,
    name: str,
    module: str,
    port: int,
    url: str,
    health: str,
    variables: Mapping[str, str] | None = None,
) -> Service:
    """A server of ours that listens on a port of the settings."""
    if services.running(settings, name) is None:
        services.require_port(settings.host, port, TITLES[name], f"OVERNIGHT_{name.upper()}_PORT")
    variables = variables or tool_variables(settings)
    command = [sys.executable, "-m", module]
    return services.start(settings, name, command, url=url, ready=_answers(health), variables=variables)


def deploy(settings: Settings) -> None:
    """Make the deployments of prefect.yaml in the running server, with this folder as their workspace."""
    variables = tool_variables(settings) | {"OVERNIGHT_WORKSPACE": str(Path.cwd())}
    prefect = _tool("prefect")
    run_tool([prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite"], variables)
    run_tool([prefect, "--no-prompt", "deploy", "--all"], variables)


def start_worker(settings: Settings) -> Service:
    """A worker that runs deployed flows as processes in this workspace."""
    command = [_tool("prefect"), "worker", "start", "--pool", POOL, "--type", "process", "--with-healthcheck"]
    port = services.free_port(settings.host)
    variables = tool_variables(settings) | {
        "PREFECT_WORKER_WEBSERVER_HOST": settings.host,
        "PREFECT_WORKER_WEBSERVER_PORT": str(port),
        "PREFECT_WORKER_QUERY_SECONDS": "2",  # a person has just pressed a button
    }
    url = f"http://{settings.host}:{port}"
    return services.start(settings, "worker", command, url=url, ready=_answers(f"{url}/health"), variables=variables)


def start_reconcile(settings: Settings) -> Service:
    """The loop that keeps serving equal to the environment files."""
    log = services.log_path(settings, "reconcile")
    url = f"http://{settings.host}:{settings.gateway_port}"
    return services.start(
        settings,
        "reconcile",
        [sys.executable, "-m", "flows.servers.supervise"],
        url=url,
        ready=lambda: b"reconciling" in log.read_bytes(),
        variables=tool_variables(settings),
    )


def start_metrics(settings: Settings) -> Service:
    """The endpoint where Prometheus finds how far a cycle is."""
    url = f"http://{settings.host}:{settings.metrics_port}/metrics"
    return _start(settings, "metrics", "dashboards.metrics", settings.metrics_port, url, url)


def up(settings: Settings, note: Callable[[str], None]) -> list[Service]:
    """Start everything that is not running yet; safe to repeat. What it started is stopped again if a part fails."""
    before = {name for name in ORDER if services.running(settings, name)}
    steps: list[tuple[str, Callable[[], object]]] = [
        ("prefect", lambda: start_prefect(settings)),
        ("mlflow", lambda: start_mlflow(settings)),
        (cluster.SERVICE, lambda: cluster.start_head(settings)),
        ("deployments", lambda: deploy(settings)),
        ("worker", lambda: start_worker(settings)),
        ("reconcile", lambda: start_reconcile(settings)),
        ("metrics", lambda: start_metrics(settings)),
    ]
    try:
        for name, step in steps:
            started = time.monotonic()
            step()
            note(f"{name:<12} {time.monotonic() - started:5.1f} s")
    except BaseException:
        for name in reversed(ORDER):
            if name not in before:
                _stop(settings, name)
        raise
    return [service for name in ORDER if (service := services.running(settings, name))]


def down(settings: Settings) -> list[str]:
    """Stop every service of this workspace; returns the names of those that ran."""
    return [name for name in reversed(ORDER) if _stop(settings, name)]


def _stop(settings: Settings, name: str) -> bool:
    """End a service, Ray with its folder. False when it was not running."""
    return cluster.stop_head(settings) if name == cluster.SERVICE else services.stop(settings, name)


def status(settings: Settings) -> dict[str, Any]:
    """Each service with its address and whether it answers, and each environment as the last reconcile left it."""
    health = {"prefect": "/api/health", "mlflow": "/health", "worker": "/health", "metrics": ""}
    rows: list[dict[str, Any]] = []
    for name in ORDER:
        service = services.running(settings, name)
        url = service.url if service else None
        healthy = service is not None and (name not in health or _answers(service.url + health[name])())
        rows.append({"name": name, "url": url, "healthy": healthy, "version": VERSIONS.get(name)})
    gateway = f"http://{settings.host}:{settings.gateway_port}"
    answers = _answers(f"{gateway}/healthz")()
    rows.append({"name": "gateway", "url": gateway, "healthy": answers, "version": None})
    last = release_status.read_status(settings)
    environments = release_status.rows(last, datetime.now(UTC), answers=answers) if last else []
    return {"services": rows, "environments": environments}
