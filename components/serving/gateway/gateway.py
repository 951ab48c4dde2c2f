"""The gateway in Ray Serve: HTTP on one side, one application per model version on the other.

Its table of versions and weights is its user configuration, which Ray Serve keeps: a gateway that crashed comes back
with it, and what the gateway serves can be asked of the gateway itself.
"""

import asyncio
import random
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from components.machine.guard import Guard
from components.serving.config import ServingConfig
from components.serving.gateway.api import build
from components.serving.gateway.protocol import Answer, ApiError, Job, Refusal
from components.serving.gateway.responses import Telemetry
from components.serving.gateway.router import Table, choose
from components.serving.replicas import replica_ports
from components.serving.versions import MODEL, WeightedVersion

SERVER = "model"


class Gateway:
    """Routes requests by weight. One table at a time, replaced as a whole."""

    def __init__(self, config: dict[str, Any], responses: str, host: str, port: int) -> None:
        replica_ports.open_none()
        self._listens = host, port
        self.config = ServingConfig.model_validate(config)
        self.telemetry = Telemetry(Path(responses))
        self._random = random.Random()
        self._table: Table | None = None
        self._handles: dict[str, DeploymentHandle] = {}

    def __serve_build_asgi_app__(self) -> Guard:
        """The HTTP face without a key: for programs of this machine, not for pages of other origins."""
        return Guard(build(self), *self._listens)

    def reconfigure(self, table: dict[str, Any]) -> None:
        """Take a new table; Ray Serve calls it on deployment and on every change."""
        new = Table.model_validate(table)
        self._handles = {
            name: self._handles.get(name) or serve.get_deployment_handle(SERVER, app_name=name)
            for name in map(new.application, new.targets)
        }
        self._table = new

    def table(self) -> Table:
        """See Backend.table."""
        if self._table is None:
            raise ApiError(503, "No model is served yet", code="no_model")
        return self._table

    def served(self) -> dict[str, Any]:
        """The table as JSON values, for the one who deploys."""
        return self.table().model_dump(mode="json")

    def route(self, model: str) -> WeightedVersion:
        """See Backend.route."""
        table = self.table()
        target = choose(table, model, self._random.random())
        if target is None:
            names = ", ".join([MODEL, *(each.model for each in table.targets)])
            raise ApiError(
                404, f"The model {model!r} is not served; served: {names}", code="model_not_found", param="model"
            )
        return target

    async def answer(self, target: WeightedVersion, job: Job) -> Answer:
        """See Backend.answer. A client that goes away cancels the call, which frees its place."""
        try:
            async with asyncio.timeout(self.config.request_timeout_seconds):
                answer = await self._handles[self.table().application(target)].answer.remote(job)
        except TimeoutError as error:
            limit = self.config.request_timeout_seconds
            raise ApiError(504, f"No answer within {limit:.0f} s; ask for fewer tokens", code="timeout") from error
        except BackPressureError as error:
            raise ApiError(503, "Too many requests wait; try again", code="overloaded") from error
        except (DeploymentUnavailableError, RayServeException, RayError) as error:
            raise ApiError(503, f"The model did not answer: {type(error).__name__}", code="unavailable") from error
        if isinstance(answer, Refusal):
            raise ApiError(400, answer.message, code=answer.code, param=answer.param)
        assert isinstance(answer, Answer)
        return answer
