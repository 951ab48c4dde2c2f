"""Critique and revision by a scripted model behind a real HTTP server."""

import re
from collections import Counter
from typing import Any

import pytest

from components.alignment.rewards.constitution import Constitution, Principle, read_constitution
from components.alignment.rewards.revise import revise, revision_in
from components.inference.endpoint import ChatEndpoint
from tests.inference.chat_server import Response, chat_server

DRAFTS = [(f"def f{number}(a):", f"    return {number}") for number in range(6)]


def script(body: dict[str, Any]) -> str | Response:
    """Criticises what it is shown by number; its revision names the critique."""
    question = body["messages"][1]["content"]
    number = int(re.findall(r"def f(\d)", question)[0])
    if "Principle:" in question:
        return Response(status=400) if number == 1 else f"critique {number} of {question.count('revised')}"
    if number == 2:
        return Response(status=400)
    return "" if number == 3 else f"```python\n    return revised {re.findall('critique . of .', question)}\n```"


def revised(url: str, rounds: int, seed: int = 0) -> list[str | None]:
    chat = ChatEndpoint(url, "m", "start it")
    return revise(chat, read_constitution(), DRAFTS, rounds=rounds, max_tokens=50, seed=seed)


def test_a_revision_follows_the_critique_of_its_own_draft_and_what_fails_stays() -> None:
    with chat_server(script) as server:
        texts = revised(server.url, 1)
        twice = revised(server.url, 2)
    assert texts[0] == "    return revised ['critique 0 of 0']"
    assert texts[5] == "    return revised ['critique 5 of 0']"
    assert texts[1:4] == [None, None, None], "no critique, no revision, an empty one"
    assert twice[0] == "    return revised ['critique 0 of 0', 'critique 0 of 1']", (
        "the second round reads the first one's revision"
    )


def test_the_principle_is_drawn_by_weight_and_the_same_for_the_same_seed() -> None:
    constitution = Constitution(
        principles=(Principle(name="a", text="Heavy.", weight=3), Principle(name="b", text="Light.", weight=1))
    )
    asked: list[list[str]] = []
    for seed in (0, 0, 1):
        with chat_server(lambda _: "") as server:
            drafts = [(f"task {number}", "x") for number in range(60)]
            revise(ChatEndpoint(server.url, "m", "a"), constitution, drafts, rounds=1, max_tokens=5, seed=seed)
        questions = sorted(each["messages"][1]["content"] for each in server.requests)
        asked.append([name for each in questions for name in re.findall(r"Principle: (\w+)", each)])
    assert asked[0] == asked[1] != asked[2]
    assert 0.65 < Counter(asked[0])["Heavy"] / 60 < 0.85


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("    return a\n", "    return a"),
        ("Here:\n```python\n    return a\n```\nDone.", "    return a"),
        ("```\ndef f(a):\n    return a\n```", "    return a"),
        ("```\na\n```\n```\nb\n```", "```\na\n```\n```\nb\n```"),
        ("", ""),
    ],
)
def test_the_answer_in_a_reply_is_its_fence_without_the_task(reply: str, text: str) -> None:
    assert revision_in(reply, "def f(a):") == text
