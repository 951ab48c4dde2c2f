"""A chat model behind an OpenAI-compatible API, asked many things at once, as a teacher or as a judge.

Covers: endpoints with a key; busy ones (Retry-After), slow ones, replies that are cut, and requests that are refused
each by itself. Every reply is kept as it arrives (replies.py): a run that stops half-way asks only the rest next time.
Not covered: streams, tools, and a limit on what is spent; tokens and cost are counted.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from components.core.addresses import masked
from components.core.config import Settings, digest_of
from components.core.errors import ConfigError, OvernightError, one_line
from components.inference.replies import REPLIES, Reply, ReplyCache

TRIES = 4
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 60.0
"""However long Retry-After asks to wait."""
TIMEOUT_SECONDS = 60.0
PARALLEL_REQUESTS = 8
MAX_REPLY_BYTES = 4_000_000
REQUEST_REFUSED = (400, 413, 422)
"""Statuses that speak of one request, as one longer than the context; others speak of the endpoint."""
Case = TypeVar("Case", contravariant=True)
Verdict = TypeVar("Verdict")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no reply to one question, where the others have theirs."""

    reason: str


class Chat(Protocol):
    """A model that follows an instruction. `model` is the name under which its own answers are known."""

    name: str
    model: str

    def replies(self, system: str, questions: Sequence[str], max_tokens: int) -> list[str | Failure]:
        """The most probable reply to each question under one system text, in their order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was asked of an endpoint. Tokens are those of new and of kept replies, where the endpoint counted them.

    `cost` is that of the new replies, in the money of the prices; None without prices.
    """

    new_replies: int = 0
    kept_replies: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    replies_without_counts: int = 0
    cost: float | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = Field(None, ge=0)
    completion_tokens: int | None = Field(None, ge=0)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Gone(Exception):  # noqa: N818  a state, not a fault
    """The endpoint does not answer, whatever it is asked."""


class ChatEndpoint:
    """The model of a name at `url` (".../v1"). `advice` says what to do when it does not answer.

    `role` is what errors call it, and whose key OVERNIGHT_<ROLE>_KEY is. `prices` are those of a million tokens that it
    reads and of a million that it writes. Raises ConfigError for an address that is none.
    """

    def __init__(
        self,
        url: str,
        model: str,
        advice: str,
        *,
        role: Literal["judge", "teacher"] = "judge",
        temperature: float = 0,
        key: str | None = None,
        parallel_requests: int = PARALLEL_REQUESTS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        cache: ReplyCache | None = None,
        prices: tuple[float, float] | None = None,
    ) -> None:
        self.url = url.rstrip("/") + "/chat/completions"
        self.name = f"endpoint:{model}"
        self.model = model
        self._advice = advice
        self._role = role
        self._temperature = temperature
        self._key = key
        self._parallel_requests = parallel_requests
        self._timeout_seconds = timeout_seconds
        self._cache = cache
        self._prices = prices
        self._usage = Usage(cost=None if prices is None else 0.0)
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL:
            address = httpx.URL("")
        if address.scheme not in ("http", "https") or not address.host:
            raise ConfigError(f"{role} at {masked(url)}: needed an address such as http://127.0.0.1:8000/v1; {advice}")

    @classmethod
    def of_settings(cls, settings: Settings, advice: str) -> Self | None:
        """The judge that the settings name; None where they name none."""
        if settings.judge_url is None:
            return None
        read, written = settings.judge_prompt_price, settings.judge_completion_price
        return cls(
            settings.judge_url,
            settings.judge_model,
            advice,
            key=None if settings.judge_key is None else settings.judge_key.get_secret_value(),
            parallel_requests=settings.judge_parallel_requests,
            timeout_seconds=settings.judge_timeout_seconds,
            cache=ReplyCache(settings.state / REPLIES),
            prices=None if read is None and written is None else (read or 0.0, written or 0.0),
        )

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._usage

    def replies(self, system: str, questions: Sequence[str], max_tokens: int) -> list[str | Failure]:
        """The text of the reply to each question; see `completions`."""
        completions = self.completions(system, questions, max_tokens)
        return [each if isinstance(each, Failure) else each.text for each in completions]

    def completions(self, system: str, questions: Sequence[str], max_tokens: int) -> list[Reply | Failure]:
        """The reply to each question under one system text (none where it is empty), in their order; equal questions
        are asked once.

        Raises OvernightError when the endpoint does not answer, or has refused everything so far. What it answered
        until then is kept.
        """
        bodies = {digest_of([self.url, body]): body for body in self._bodies(system, questions, max_tokens)}
        replies: dict[str, Reply | Failure] = {}
        for digest in bodies:
            if self._cache is not None and (kept := self._cache.find(digest)) is not None:
                replies[digest] = kept
                self._count(kept, new=False)
        try:
            self._ask({digest: body for digest, body in bodies.items() if digest not in replies}, replies)
        except _Gone as error:
            raise self._error(f"{error}{self._progress(replies, len(bodies))}") from error
        failures = [each for each in replies.values() if isinstance(each, Failure)]
        if failures and not self._usage.new_replies + self._usage.kept_replies:
            raise self._error(f"no request has a reply, the first: {failures[0].reason}")
        return [replies[digest_of([self.url, body])] for body in self._bodies(system, questions, max_tokens)]

    def _bodies(self, system: str, questions: Sequence[str], max_tokens: int) -> list[dict[str, Any]]:
        first = [{"role": "system", "content": system}] if system else []
        return [
            {
                "model": self.model,
                "messages": [*first, {"role": "user", "content": question}],
                "temperature": self._temperature,
                "max_tokens": max_tokens,
            }
            for question in questions
        ]

    def _ask(self, bodies: Mapping[str, dict[str, Any]], replies: dict[str, Reply | Failure]) -> None:
        """Put the reply to each body into `replies`, those before an end of the endpoint too. Raises _Gone."""
        if not bodies:
            return
        stop = threading.Event()
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        limits = httpx.Limits(max_connections=self._parallel_requests)
        pool = ThreadPoolExecutor(self._parallel_requests)
        with httpx.Client(timeout=self._timeout_seconds, headers=headers, limits=limits) as client, pool:
            asked = {pool.submit(self._kept, client, digest, body, stop): digest for digest, body in bodies.items()}
            try:
                for future in as_completed(asked):
                    self._take(future, asked[future], replies)
            except BaseException:
                stop.set()  # those that wait in the pool end at once
                for future, digest in asked.items():
                    if digest not in replies and future.exception() is None:  # it was on its way
                        self._take(future, digest, replies)
                raise

    def _take(self, future: "Future[Reply | Failure]", digest: str, replies: dict[str, Reply | Failure]) -> None:
        replies[digest] = future.result()
        self._count(replies[digest], new=True)

    def _kept(self, client: httpx.Client, digest: str, body: dict[str, Any], stop: threading.Event) -> Reply | Failure:
        reply = self._post(client, body, stop)
        if self._cache is not None and isinstance(reply, Reply):
            self._cache.keep(digest, reply)
        return reply

    def _post(self, client: httpx.Client, body: dict[str, Any], stop: threading.Event) -> Reply | Failure:
        """The reply after some tries. A reply that cannot be read fails alone; one that does not come raises _Gone."""
        result: Failure | _Gone = _Gone("stopped")
        wait_seconds = 0.0
        for attempt in range(TRIES):
            if stop.wait(wait_seconds):
                break
            wait_seconds = FIRST_WAIT_SECONDS * 2**attempt
            try:
                response = self._exchange(client, body)
            except httpx.HTTPError as error:
                result = _Gone(self._shown(error))
                continue
            status = response.status_code
            if status == 429 or status >= 500:
                result = _Gone(f"status {status}")
                wait_seconds = min(LONGEST_WAIT_SECONDS, max(wait_seconds, _retry_after_seconds(response)))
            elif status in REQUEST_REFUSED:
                return Failure(f"status {status}: {self._shown(response.text)}")
            elif status != 200:
                key = f", set OVERNIGHT_{self._role.upper()}_KEY" if status in (401, 403) else ""
                raise _Gone(f"status {status}{key}")
            else:
                try:
                    return _reply_of(response.content)
                except (ValidationError, UnicodeError) as error:
                    result = Failure(f"its reply is no chat completion: {self._shown(error)}")
        if isinstance(result, _Gone):
            raise result
        return result

    def _exchange(self, client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
        """One request and its whole response. Raises httpx.HTTPError, for one that trickles in or never ends too."""
        ends = time.monotonic() + self._timeout_seconds
        with client.stream("POST", self.url, json=body) as response:
            content = bytearray()
            for piece in response.iter_bytes():
                content += piece
                if time.monotonic() > ends:
                    raise httpx.ReadTimeout(f"no whole reply within {self._timeout_seconds:g} seconds")
                if len(content) > MAX_REPLY_BYTES:
                    raise httpx.ReadError(f"a reply of more than {MAX_REPLY_BYTES} bytes")
        headers = {name: value for name, value in response.headers.items() if name == "retry-after"}
        return httpx.Response(response.status_code, headers=headers, content=bytes(content))

    def _count(self, reply: Reply | Failure, *, new: bool) -> None:
        usage = self._usage
        if isinstance(reply, Failure):
            self._usage = replace(usage, failures=usage.failures + 1)
            return
        is_counted = None not in (reply.prompt_tokens, reply.completion_tokens)
        read, written = reply.prompt_tokens or 0, reply.completion_tokens or 0
        cost = usage.cost
        if new and cost is not None and self._prices is not None:
            cost += (read * self._prices[0] + written * self._prices[1]) / 1e6
        self._usage = Usage(
            new_replies=usage.new_replies + new,
            kept_replies=usage.kept_replies + (not new),
            failures=usage.failures,
            prompt_tokens=usage.prompt_tokens + read,
            completion_tokens=usage.completion_tokens + written,
            replies_without_counts=usage.replies_without_counts + (not is_counted),
            cost=cost,
        )

    def _shown(self, said: object) -> str:
        """An error or a response on one line, without the key if it repeats that."""
        text = one_line(said)
        return text if self._key is None else text.replace(self._key, "***")

    def _progress(self, replies: Mapping[str, Reply | Failure], wanted: int) -> str:
        count = sum(isinstance(each, Reply) for each in replies.values())
        if self._cache is None or not count:
            return ""
        return f" after {count} of {wanted} replies, which are kept: another run asks only the rest"

    def _error(self, problem: str) -> OvernightError:
        return OvernightError(f"{self._role} at {self.url}: {problem}; start it, or {self._advice}")


def _reply_of(content: bytes) -> Reply:
    """The reply in a response's body. Raises ValidationError where it is cut or something else."""
    completion = _Completion.model_validate_json(content)
    usage = completion.usage or _Usage()
    return Reply(
        text=completion.choices[0].message.content or "",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        finish_reason=completion.choices[0].finish_reason,
    )


def _retry_after_seconds(response: httpx.Response) -> float:
    """How long a response asks to wait: seconds or a date (RFC 9110, section 10.2.3); 0 where it does not say."""
    value = response.headers.get("retry-after", "")
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


class Judge(Protocol[Case, Verdict]):
    """Says what it makes of each case. Deterministic for equal cases as far as its model is."""

    name: str

    def judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """The verdict on each case, in their order."""
        ...


class ChatJudge(Generic[Case, Verdict]):
    """A chat model as judge: one instruction, a question for each case, and a reader of its short replies."""

    def __init__(
        self,
        chat: Chat,
        instruction: str,
        *,
        max_tokens: int,
        question: Callable[[Case], str],
        verdict: Callable[[Case, str | Failure], Verdict],
    ) -> None:
        self.name = chat.name
        self._chat = chat
        self._instruction = instruction
        self._max_tokens = max_tokens
        self._question = question
        self._verdict = verdict

    def judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """See Judge.judge. Raises OvernightError when the model does not answer."""
        replies = self._chat.replies(self._instruction, [*map(self._question, cases)], self._max_tokens)
        return [self._verdict(case, reply) for case, reply in zip(cases, replies, strict=True)]
