"""The HTTP face: OpenAI's paths over something that answers jobs. Knows nothing of Ray.

Every answer says which model gave it: header x-overnight-model-digest, and system_fingerprint in the body. Every error
has OpenAI's shape, also for unknown paths and methods.
Streamed answers arrive choice by choice, each whole: the engines do not give out single tokens.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from components.serving.config import ServingConfig
from components.serving.gateway.protocol import (
    Answer,
    ApiError,
    ChatRequest,
    Choice,
    CompletionRequest,
    Generation,
    Job,
    parse,
    shown,
)
from components.serving.gateway.responses import Telemetry
from components.serving.gateway.router import Table
from components.serving.versions import MODEL, WeightedVersion

DIGEST_HEADER = "x-overnight-model-digest"
BODY_SECONDS = 10


class Backend(Protocol):
    """What the HTTP face stands on."""

    config: ServingConfig
    telemetry: Telemetry

    def table(self) -> Table:
        """What is served. Raises ApiError 503 while nothing is."""
        ...

    def route(self, model: str) -> WeightedVersion:
        """The version for one request. Raises ApiError 404 for a model that is not served."""
        ...

    async def answer(self, target: WeightedVersion, job: Job) -> Answer:
        """The answer of a version. Raises ApiError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How completions and chat differ in what they send."""

    prefix: str
    whole: str
    part: str
    choice: Callable[[Choice], dict[str, Any]]
    piece: Callable[[Choice], dict[str, Any]]


COMPLETION = Shape(
    prefix="cmpl",
    whole="text_completion",
    part="text_completion",
    choice=lambda choice: {"text": choice.text},
    piece=lambda choice: {"text": choice.text},
)
CHAT = Shape(
    prefix="chatcmpl",
    whole="chat.completion",
    part="chat.completion.chunk",
    choice=lambda choice: {"message": {"role": "assistant", "content": choice.text, "refusal": None}},
    piece=lambda choice: {"delta": {"role": "assistant", "content": choice.text}},
)


def build(backend: Backend) -> FastAPI:
    """The application."""
    app = FastAPI(title="Overnight", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(StarletteHTTPException, _unknown_path)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await _respond(backend, request, CompletionRequest, _completion_job, COMPLETION)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _respond(backend, request, ChatRequest, _chat_job, CHAT)

    @app.get("/v1/models")
    async def models() -> Response:
        return await _guarded(backend, lambda: _models(backend.table()))

    @app.get("/healthz")
    async def healthz() -> Response:
        return await _guarded(
            backend, lambda: JSONResponse({"status": "ok", **backend.table().model_dump(mode="json")})
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(backend.telemetry.render(), media_type="text/plain; version=0.0.4")

    return app


def _completion_job(request: CompletionRequest) -> Job:
    return Job(prompts=request.prompt, suffix=request.suffix, **_sampling(request))


def _chat_job(request: ChatRequest) -> Job:
    return Job(messages=tuple((each.role, each.content) for each in request.messages), **_sampling(request))


def _sampling(request: Generation) -> dict[str, Any]:
    names = ("max_tokens", "temperature", "top_p", "n", "stop", "seed")
    return {name: getattr(request, name) for name in names}


async def _respond(
    backend: Backend, http: Request, request_type: type[Any], to_job: Callable[[Any], Job], shape: Shape
) -> Response:
    """Answer one generation request, or say in OpenAI's shape why not. Counts it either way."""
    started = time.perf_counter()
    target: WeightedVersion | None = None
    try:
        request = parse(await _body(http, backend.config.max_body_bytes), request_type)
        job = to_job(request)
        _check_limits(backend.config, job)
        target = backend.route(request.model)
        answer = await backend.answer(target, job)
    except ApiError as error:
        backend.telemetry.refused(error.status, target)
        return _failure(error)
    response_id = f"{shape.prefix}-{uuid.uuid4().hex}"
    backend.telemetry.answered(
        response_id,
        target,
        seconds=time.perf_counter() - started,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
    )
    head = {
        "id": response_id,
        "created": int(time.time()),
        "model": target.model,
        "system_fingerprint": f"{target.model}@{target.digest[:16]}",
    }
    headers = {DIGEST_HEADER: target.digest}
    if request.stream:
        events = _events({**head, "object": shape.part}, answer, shape, request.stream_options.include_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)
    choices = [
        {"index": index, **shape.choice(choice), "logprobs": None, "finish_reason": choice.finish_reason}
        for index, choice in enumerate(answer.choices)
    ]
    return JSONResponse({**head, "object": shape.whole, "choices": choices, "usage": _usage(answer)}, headers=headers)


def _events(head: dict[str, Any], answer: Answer, shape: Shape, include_usage: bool) -> Iterator[str]:
    """Server-sent events: one per choice, one with the usage when asked for, and the end."""
    for index, choice in enumerate(answer.choices):
        piece = {"index": index, **shape.piece(choice), "logprobs": None, "finish_reason": choice.finish_reason}
        yield f"data: {json.dumps({**head, 'choices': [piece]})}\n\n"
    if include_usage:
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(answer)})}\n\n"
    yield "data: [DONE]\n\n"


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def _models(table: Table) -> Response:
    names = [MODEL, *(target.model for target in table.targets)]
    return JSONResponse(
        {"object": "list", "data": [{"id": n, "object": "model", "created": 0, "owned_by": MODEL} for n in names]}
    )


def _check_limits(config: ServingConfig, job: Job) -> None:
    """Raise ApiError for a request that asks for more than one may."""
    samples = max(len(job.prompts), 1) * job.n
    if samples > config.max_samples:
        raise ApiError(
            400,
            f"n is {job.n}, which makes {samples} samples with the prompts given; at most {config.max_samples}",
            code="invalid_value",
            param="n",
        )
    if len(job.stop) > config.max_stops:
        raise ApiError(
            400, f"stop has {len(job.stop)} strings; at most {config.max_stops}", code="invalid_value", param="stop"
        )


async def _body(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit in bytes and in seconds. Raises ApiError."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ApiError(415, f"Content-Encoding {shown(encoding)} is not read here; send the body as plain JSON")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                if len(body) + len(part) > limit:
                    raise ApiError(413, f"The body is larger than {limit} bytes", code="request_too_large")
                body += part
    except TimeoutError as error:
        raise ApiError(
            408, f"The body did not arrive within {BODY_SECONDS} s; send it again", code="timeout"
        ) from error
    return bytes(body)


async def _guarded(backend: Backend, answer: Callable[[], Response]) -> Response:
    try:
        return answer()
    except ApiError as error:
        return _failure(error)


def _failure(error: ApiError) -> Response:
    headers = {"retry-after": "1"} if error.status == 503 else None
    return JSONResponse(error.body, status_code=error.status, headers=headers)


async def _unknown_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    message = f"{shown(request.method)} {shown(request.url.path)}: {str(error.detail).lower()}"
    return JSONResponse(ApiError(error.status_code, message, code="unknown_url").body, status_code=error.status_code)
