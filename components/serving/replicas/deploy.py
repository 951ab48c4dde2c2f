"""Make Ray Serve equal to a table of versions: stage, check, shift, drop.

Serve's controller and its replicas are detached from the process that deploys: they live as long as the Ray head. New
versions are started and asked for one answer before the gateway hears of them, and old ones go only after it has let go
of them, each finishing what it has begun. Every step may be cut off and repeated.
Actors ask for no CPUs: a served model must not keep the next cycle's work from being scheduled, nor wait for it.
"""

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, LoggingConfig

from components.core.config import Settings, digest_of
from components.core.errors import OvernightError
from components.core.graph.closure import code_digest
from components.machine.services import port_open, require_port
from components.serving.config import ServingConfig
from components.serving.gateway.gateway import SERVER, Gateway
from components.serving.gateway.protocol import Answer, Job
from components.serving.gateway.router import Table
from components.serving.replicas.model_server import ModelServer
from components.serving.versions import MODEL, WeightedVersion

GATEWAY = "gateway"
CONTROLLER = ("SERVE_CONTROLLER_ACTOR", "serve")
LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)
PROBE = Job(prompts=("def ",), max_tokens=1, temperature=0.0, top_p=1.0, n=1, stop=(), seed=None)
PROBE_SECONDS = 60
START_SECONDS = 300
POLL_SECONDS = 0.05
HEALTH_SECONDS = 5
UPLOADS = 2000


def url(settings: Settings) -> str:
    """Where the gateway answers."""
    return f"http://{settings.host}:{settings.gateway_port}"


def serving_digest(config: ServingConfig) -> str:
    """Digest of how models are served: the config and the code. Another one makes every version be staged anew."""
    return digest_of([config.digest, code_digest(Path(__file__))])


def start(settings: Settings) -> None:
    """Start Serve's controller and its HTTP proxy, unless they run.

    Raises BusyError when the gateway's port is held by somebody else.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if not _running():
        require_port(settings.host, settings.gateway_port, "the gateway", "OVERNIGHT_GATEWAY_PORT")
    elif not port_open(settings.host, settings.gateway_port):
        raise OvernightError(
            f"Ray Serve runs, but nothing answers at {url(settings)}; "
            "was OVERNIGHT_GATEWAY_PORT changed? `overnight down` and `overnight up` start it there"
        )
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=settings.host, port=settings.gateway_port),
        logging_config=LOGGING,
    )


def live() -> Table | None:
    """The table that the gateway serves now; None when there is no gateway that answers."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if not _running():
        return None
    try:
        handle = serve.get_app_handle(GATEWAY)
        return Table.model_validate(handle.served.remote().result(timeout_s=HEALTH_SECONDS))
    except (RayServeException, RayError, TimeoutError, GetTimeoutError):
        return None


def healthy(table: Table) -> bool:
    """Whether the applications of a table, and the gateway, all run, and no others."""
    if not _running():
        return False
    wanted = {GATEWAY, *map(table.application, table.targets)}
    statuses = {name: each.status for name, each in serve.status().applications.items()}
    return set(statuses) == wanted and set(statuses.values()) == {ApplicationStatus.RUNNING}


def apply(settings: Settings, config: ServingConfig, table: Table, directories: Mapping[str, Path]) -> None:
    """Serve a table. `directories` hold the verified files of each version, by digest.

    Raises OvernightError when a new version does not start or does not answer; what was live then stays live.
    """
    start(settings)
    _stage(settings, config, table, directories)
    if live() != table:
        _deploy([_gateway(settings, config, table)])
        _wait_for(table)
    keep = {GATEWAY, *map(table.application, table.targets)}
    for name in set(serve.status().applications) - keep:
        if name.startswith(f"{MODEL}-"):
            serve.delete(name)


def _stage(settings: Settings, config: ServingConfig, table: Table, directories: Mapping[str, Path]) -> None:
    """Start the versions that do not run, and ask every version for an answer; what was started goes on a failure.

    Where nothing is live yet there is nothing to protect: the gateway then starts beside the first versions, which
    saves 2 s.
    """
    statuses = serve.status().applications
    running = {name for name, each in statuses.items() if each.status == ApplicationStatus.RUNNING}
    staged = [target for target in table.targets if table.application(target) not in running]
    applications = [_model(settings, config, table, target, directories[target.digest]) for target in staged]
    if GATEWAY not in statuses:
        applications.append(_gateway(settings, config, table))
    try:
        _deploy(applications)
        for target in table.targets:
            _probe(table, target)
    except BaseException as error:
        for application in applications:
            if application.name not in statuses:
                serve.delete(application.name)
        if isinstance(error, RayServeException | RayError | TimeoutError):
            names = ", ".join(target.model for target in staged or table.targets)
            why = " ".join(str(error).split())[-300:]
            raise OvernightError(f"{names} did not start or did not answer, nothing was changed: {why}") from error
        raise


def _deploy(targets: list[serve.RunTarget]) -> None:
    """Deploy applications at once and wait until they run: ours looks every 50 ms, Serve's own wait once a second.

    Raises OvernightError with Serve's last line about the first that cannot start.
    """
    if not targets:
        return
    serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    deadline = time.monotonic() + START_SECONDS
    while True:
        statuses = serve.status().applications
        states = [(target.name, statuses.get(target.name)) for target in targets]
        if all(each and each.status == ApplicationStatus.RUNNING for _, each in states):
            return
        for name, each in states:
            failed = each and each.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
            if failed or time.monotonic() > deadline:
                state = f"{each.status}: {_reason(each)}" if each else "absent"
                raise OvernightError(f"{name} did not start, nothing was changed; Ray Serve says {state}")
        time.sleep(POLL_SECONDS)


def _wait_for(table: Table) -> None:
    """Wait until the gateway serves the table. Raises OvernightError when it does not come to."""
    deadline = time.monotonic() + PROBE_SECONDS
    while live() != table:
        if time.monotonic() > deadline:
            raise OvernightError(f"the gateway did not take over the state of commit {table.commit[:12]}; try again")
        time.sleep(POLL_SECONDS)


def _model(
    settings: Settings, config: ServingConfig, table: Table, target: WeightedVersion, directory: Path
) -> serve.RunTarget:
    deployment = serve.deployment(ModelServer, name=SERVER).options(
        num_replicas=config.num_replicas,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=config.max_batch_size * 2,
        max_queued_requests=config.max_queued_requests,
        max_constructor_retry_count=1,
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=config.drain_seconds,
    )
    engines = settings.state.resolve() / "engines"
    application = deployment.bind(str(directory.resolve()), str(engines), config.num_threads, config.max_batch_size)
    return serve.RunTarget(application, name=table.application(target), route_prefix=None, logging_config=LOGGING)


def _gateway(settings: Settings, config: ServingConfig, table: Table) -> serve.RunTarget:
    deployment = serve.deployment(serve.ingress()(Gateway), name=GATEWAY).options(
        # To Serve every deployment is a new version of the code: the new gateway starts before the old one drains.
        max_surge_percent=100,
        ray_actor_options={"num_cpus": 0},
        # Its models' queues say when there are too many requests. Bodies that arrive slowly must not take their places.
        max_ongoing_requests=config.max_queued_requests * 2 + UPLOADS,
        user_config=table.model_dump(mode="json"),
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=config.drain_seconds,
    )
    responses = settings.state.resolve() / "responses"
    listens = settings.host, settings.gateway_port
    application = deployment.bind(config.model_dump(mode="json"), str(responses), *listens)
    return serve.RunTarget(application, name=GATEWAY, route_prefix="/", logging_config=LOGGING)


def _probe(table: Table, target: WeightedVersion) -> None:
    """Ask a version for one token, past the gateway. Raises OvernightError when it gives none."""
    handle = serve.get_deployment_handle(SERVER, app_name=table.application(target))
    answer: Any = handle.answer.remote(PROBE).result(timeout_s=PROBE_SECONDS)
    if not isinstance(answer, Answer):
        raise OvernightError(f"{target.model} did not answer a probe, nothing was changed: {answer}")


def _reason(application: ApplicationStatusOverview) -> str:
    """What Serve says about an application and its deployments that do not run, in one line."""
    messages = [application.message, *(each.message for each in application.deployments.values())]
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return str((errors or lines or ["no reason"])[-1])[:300]


def _running() -> bool:
    """Whether this Ray has a Serve controller."""
    try:
        ray.get_actor(CONTROLLER[0], namespace=CONTROLLER[1])
    except ValueError:
        return False
    return True
