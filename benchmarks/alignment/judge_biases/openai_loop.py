"""The `openai` client in a loop, as examples of judges have it."""

from collections.abc import Sequence
from pathlib import Path

from openai import OpenAI

from benchmarks.alignment.judge_biases import measure
from benchmarks.harness import Outcome
from components.inference.endpoint import Failure


class LoopChat:
    """One question after the other; see endpoint.Chat."""

    def __init__(self, url: str, model: str) -> None:
        self.name = self.model = model
        self._client = OpenAI(base_url=url, api_key="none")

    def replies(self, system: str, questions: Sequence[str], max_tokens: int) -> list[str | Failure]:
        """See Chat.replies."""
        return [self._reply(system, each, max_tokens) for each in questions]

    def _reply(self, system: str, question: str, max_tokens: int) -> str:
        completion = self._client.chat.completions.create(
            model=self.model,
            messages=[{"role": "system", "content": system}, {"role": "user", "content": question}],
            temperature=0,
            max_tokens=max_tokens,
        )
        return completion.choices[0].message.content or ""


def run(folder: Path) -> Outcome:
    """Verdicts a second, both orders of a pair in one."""
    return measure(LoopChat)
