"""A chat model behind an OpenAI-compatible API, asked many things at once, and as a judge.

Covers: busy and failing endpoints (three tries).  Not covered: endpoints that need a key.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, Self, TypeVar

import httpx

from components.core.config import Settings
from components.core.errors import OvernightError

TRIES = 3
TIMEOUT_SECONDS = 60.0
PARALLEL_REQUESTS = 8
VERDICT_TOKENS = 8
Case = TypeVar("Case", contravariant=True)
Verdict = TypeVar("Verdict")


class ChatEndpoint:
    """The model of a name at `url` (".../v1"). `advice` says what to do when it does not answer."""

    def __init__(self, url: str, model: str, advice: str) -> None:
        self.url = url.rstrip("/") + "/chat/completions"
        self.model = model
        self._advice = advice

    @classmethod
    def of_settings(cls, settings: Settings, advice: str) -> Self | None:
        """The judge that the settings name; None where they name none."""
        return None if settings.judge_url is None else cls(settings.judge_url, settings.judge_model, advice)

    def replies(self, system: str, questions: Sequence[str], max_tokens: int) -> list[str]:
        """The reply to each question under one system text, in their order.

        Raises OvernightError when the endpoint does not answer.
        """
        with httpx.Client(timeout=TIMEOUT_SECONDS) as client, ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            return list(pool.map(lambda each: self._post(client, self._body(system, each, max_tokens)), questions))

    def _body(self, system: str, question: str, max_tokens: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> str:
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(2.0 ** (attempt - 1) / 2)
            try:
                response = client.post(self.url, json=body)
                if response.status_code == 429 or response.status_code >= 500:
                    problem = f"status {response.status_code}"
                    continue
                response.raise_for_status()
                return str(response.json()["choices"][0]["message"]["content"] or "")
            except httpx.TransportError as error:
                problem = str(error) or type(error).__name__
            except (httpx.HTTPStatusError, ValueError, KeyError, IndexError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}".splitlines()[0]
                break
        raise OvernightError(f"judge at {self.url}: {problem}; start it, or {self._advice}")


class Judge(Protocol[Case, Verdict]):
    """Says what it makes of each case. Deterministic for equal cases as far as its model is."""

    name: str

    def judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """The verdict on each case, in their order."""
        ...


class EndpointJudge(Generic[Case, Verdict]):
    """A chat model as judge: one instruction, a question for each case, and a reader of its short replies."""

    def __init__(
        self,
        endpoint: ChatEndpoint,
        instruction: str,
        *,
        question: Callable[[Case], str],
        verdict: Callable[[Case, str], Verdict],
    ) -> None:
        self.name = f"endpoint:{endpoint.model}"
        self._endpoint = endpoint
        self._instruction = instruction
        self._question = question
        self._verdict = verdict

    def judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """See Judge.judge. Raises OvernightError when the endpoint does not answer."""
        replies = self._endpoint.replies(self._instruction, [*map(self._question, cases)], VERDICT_TOKENS)
        return [self._verdict(case, reply) for case, reply in zip(cases, replies, strict=True)]
