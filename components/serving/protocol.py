"""The OpenAI shapes: requests in, answers and errors out, and what passes between the gateway and a model.

Covers: /v1/completions with prompt (text or a list of texts), suffix, max_tokens, temperature, top_p, n, stop, seed,
stream; /v1/chat/completions with text messages. Parameters that would change the answer and that we do not have
(logprobs, echo, penalties, tools) are refused by name; `user` is accepted and ignored.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

FinishReason = Literal["stop", "length"]
Role = Literal["system", "user", "assistant"]


class ApiError(Exception):
    """An error that the client gets in OpenAI's shape."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    include_usage: bool = False


class Generation(BaseModel):
    """What completions and chat have in common. A null stands for the default, as in OpenAI's API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    max_tokens: int | None = Field(None, ge=1, description="as many as the model's context holds when absent")
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1)
    stop: tuple[str, ...] = ()
    seed: int | None = Field(None, ge=0, lt=2**32)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str = ""

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, value: Any) -> Any:
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty stop string would end every answer before it starts")
        return value


class CompletionRequest(Generation):
    """Body of /v1/completions."""

    prompt: tuple[str, ...] = Field(min_length=1)
    max_tokens: int | None = Field(16, ge=1)
    suffix: str | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_or_many_prompts(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str


class ChatRequest(Generation):
    """Body of /v1/chat/completions."""

    messages: tuple[Message, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _newer_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and "max_completion_tokens" in value:
            rest = {key: each for key, each in value.items() if key != "max_completion_tokens"}
            return {**rest, "max_tokens": value["max_completion_tokens"]}
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request as the model gets it: either prompts with a suffix for all of them, or one chat."""

    prompts: tuple[str, ...] = ()
    suffix: str | None = None
    messages: tuple[tuple[Role, str], ...] = ()
    max_tokens: int | None
    temperature: float
    top_p: float
    n: int
    stop: tuple[str, ...]
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One sample of one prompt."""

    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model made of a job: n choices for each prompt, in order. Tokens of all prompts, and of all samples."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a model cannot do a job, for the client."""

    message: str
    code: str
    param: str


Request = TypeVar("Request", bound=Generation)


def parse(body: bytes, request_type: type[Request]) -> Request:
    """A request from the bytes of a body. Raises ApiError 400 that names the parameter."""
    try:
        return request_type.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
    if first["type"] == "json_invalid":
        raise ApiError(400, f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    param = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(request_type.model_fields))
        raise ApiError(
            400, f"{param} is not supported; supported: {allowed}", code="unsupported_parameter", param=param
        )
    if first["type"] == "missing":
        raise ApiError(400, f"{param} is missing", code="missing_required_parameter", param=param)
    message = first["msg"].removeprefix("Value error, ")
    raise ApiError(400, f"{param or 'the body'}: {message[:1].lower()}{message[1:]}", code="invalid_value", param=param)
