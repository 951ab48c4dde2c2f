"""The OpenAI shapes: requests in, answers and errors out, and what passes between the gateway and a model.

Covers: /v1/completions with prompt (text or a list of texts), suffix, max_tokens, temperature, top_p, n, stop, seed,
stream; /v1/chat/completions with text messages. Parameters that would change the answer and that we do not have
(logprobs, echo, penalties, tools) are refused by name; `user` is accepted and ignored.

Requests are read on the loop that serves everybody, so the work that a body can ask for is bounded before it is begun:
by the number of its values first, then by the length of each list. A list is looked at up to its first mistake.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from components.inference.bounds import HIGHEST_TEMPERATURE, NUM_SEEDS

FinishReason = Literal["stop", "length"]
Role = Literal["system", "user", "assistant"]

MAX_MARKS = 10_000
MAX_MESSAGES = 1_000
MAX_NAME_LENGTH = 200
MAX_STOP_LENGTH = 1_000
SHOWN_LENGTH = 80
LARGEST_INTEGER = 2**31 - 1


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


class RequestObject(BaseModel):
    """An object in a request. Of the keys that it may not have, the first is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise PydanticCustomError("object_type", "input should be an object")
        unknown = next((key for key in value if key not in cls.model_fields), None)
        if unknown is not None:
            supported = ", ".join(sorted(cls.model_fields))
            raise PydanticCustomError("unsupported", "", {"key": shown(unknown), "supported": supported})
        return value


class StreamOptions(RequestObject):
    """Options of a streamed answer."""

    include_usage: bool = False


class Generation(RequestObject):
    """What completions and chat have in common. A null stands for the default, as in OpenAI's API."""

    model: str = Field(max_length=MAX_NAME_LENGTH)
    max_tokens: int | None = Field(
        None, ge=1, le=LARGEST_INTEGER, description="as many as the model's context holds when absent"
    )
    temperature: float = Field(1.0, ge=0, le=HIGHEST_TEMPERATURE)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=LARGEST_INTEGER)
    stop: Annotated[tuple[Annotated[str, Field(max_length=MAX_STOP_LENGTH)], ...], FailFast()] = ()
    seed: int | None = Field(None, ge=0, lt=NUM_SEEDS)
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

    prompt: Annotated[tuple[str, ...], FailFast()] = Field(min_length=1)
    max_tokens: int | None = Field(16, ge=1, le=LARGEST_INTEGER)
    suffix: str | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_or_many_prompts(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Message(RequestObject):
    """One turn of a chat."""

    role: Role
    content: str


class ChatRequest(Generation):
    """Body of /v1/chat/completions."""

    messages: Annotated[tuple[Message, ...], FailFast()] = Field(min_length=1, max_length=MAX_MESSAGES)

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
    param: str | None


Request = TypeVar("Request", bound=Generation)


def parse(body: bytes, request_type: type[Request]) -> Request:
    """A request from the bytes of a body. Raises ApiError 400 that names the parameter."""
    if marks(body) > MAX_MARKS:
        raise ApiError(
            400,
            f"The body has more than {MAX_MARKS} commas, colons and opening brackets outside of its strings; "
            "send fewer messages, prompts or keys",
            code="too_many_values",
        )
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}") from error
    try:
        return request_type.model_validate(value)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False)[0]) from error


def marks(body: bytes) -> int:
    """How many commas, colons and opening brackets a body has outside of its strings, found without reading a value.

    At least half as many as it has values and keys. Exact only in whether they are more than MAX_MARKS.
    """
    count = _marks_of(body)
    if count <= MAX_MARKS:
        return count
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    pieces = unescaped.split(b'"', 2 * MAX_MARKS + 1)  # every second one is a string
    return max(_marks_of(b"".join(pieces[::2])), len(pieces) // 2)


def _marks_of(text: bytes) -> int:
    return len(text) - len(text.translate(None, b",:[{"))


def shown(text: str) -> str:
    """What a client sent, as short as a message needs it."""
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."


def _refusal(error: ErrorDetails) -> ApiError:
    """The mistake of a request as OpenAI's API says it: `param` is the parameter, the message says where in it."""
    place = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in error["loc"]).removeprefix(".")
    param = str(error["loc"][0]) if error["loc"] else None
    if error["type"] == "unsupported":
        key = f"{place}.{error['ctx']['key']}" if place else error["ctx"]["key"]
        return ApiError(
            400,
            f"{key} is not supported; supported: {error['ctx']['supported']}",
            code="unsupported_parameter",
            param=param or key,
        )
    if error["type"] == "missing":
        return ApiError(400, f"{place} is missing", code="missing_required_parameter", param=param)
    message = error["msg"].removeprefix("Value error, ")
    return ApiError(
        400, f"{place or 'the body'}: {message[:1].lower()}{message[1:]}", code="invalid_value", param=param
    )
