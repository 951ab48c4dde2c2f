"""Judges: the endpoint over a real HTTP server on loopback, the model by a real engine."""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from components.alignment.examples.chat import answer_tokens, prompt_tokens
from components.alignment.rewards.judge import (
    Answer,
    Constitution,
    ModelJudge,
    Principle,
    Score,
    grading_endpoint,
    read_constitution,
)
from components.core.errors import ConfigError, OvernightError
from components.inference.endpoint import ChatEndpoint
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec

pytestmark = pytest.mark.numeric


@contextmanager
def endpoint(replies: list[tuple[int, str]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that grades by the answer's length, after the given replies; its address and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, **body})
            text = body["messages"][-1]["content"].split("Answer:\n")[1]
            status, reply = replies.pop(0) if replies else (200, f"Grade: {min(10, len(text))}/10")
            content = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
        finally:
            server.shutdown()
            thread.join()


def scores_of(url: str, *texts: str) -> list[Score]:
    return grading_endpoint(ChatEndpoint(url, "m", "unset OVERNIGHT_JUDGE_URL"), read_constitution()).judge(
        answers(*texts)
    )


def answers(*texts: str) -> list[Answer]:
    return [Answer(prompt="def f():", text=text) for text in texts]


def test_the_endpoint_reads_the_constitution_and_grades_each_answer_in_order() -> None:
    constitution = read_constitution()
    with endpoint([]) as (url, asked):
        scores = scores_of(url, "a", "abcdefgh", "abcd")
    assert scores == [0.1, 0.8, 0.4]
    assert {each["path"] for each in asked} == {"/v1/chat/completions"}
    assert all(each["model"] == "m" and each["temperature"] == 0 for each in asked)
    assert all(principle.text in asked[0]["messages"][0]["content"] for principle in constitution.principles)


def test_a_broken_principle_costs_one_whoever_judges() -> None:
    with endpoint([]) as (url, _):
        (score,) = scores_of(url, "    return eval(x)  #")
    assert score == pytest.approx(1.0 - 1)


def test_a_reply_without_a_grade_gives_no_score() -> None:
    with endpoint([(200, "I would rather not")]) as (url, _):
        assert scores_of(url, "abc") == [None]


def test_a_busy_endpoint_is_asked_again_and_a_dead_one_named() -> None:
    with endpoint([(503, ""), (429, "")]) as (url, asked):
        assert scores_of(url, "abc") == [0.3]
        assert len(asked) == 3
    with pytest.raises(OvernightError, match=r"judge at http://127.*OVERNIGHT_JUDGE_URL"):
        scores_of(url, "abc")


def test_an_endpoint_that_refuses_is_not_asked_again() -> None:
    with (
        endpoint([(404, "")]) as (url, asked),
        pytest.raises(OvernightError, match="404"),
    ):
        scores_of(url, "abc")
    assert len(asked) == 1


def test_the_model_scores_by_the_mean_probability_of_the_answer_under_the_constitution(world: Path) -> None:
    codec = TextCodec(world / "base")
    constitution = Constitution(principles=(Principle(name="short", text="Be short."),))
    texts = ["    return a", "    return total + b"]
    with closing(open_engine(world / "base", "ctranslate2")) as engine:
        scores = ModelJudge(engine, codec, constitution, 256).judge(answers(*texts))
        assert ModelJudge(engine, codec, constitution, 8).judge(answers(*texts)) == [None, None]
    model = AutoModelForCausalLM.from_pretrained(world / "base", dtype=torch.float32)
    for text, score in zip(texts, scores, strict=True):
        target = answer_tokens(codec.encode(text))
        ids = torch.tensor([prompt_tokens(codec.encode("def f():"), codec.encode("Be short.")) + target])
        with torch.inference_mode():
            logs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-len(target) :]
        assert score == pytest.approx(math.exp(float(logs.mean())), rel=1e-3)


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("    return a + b", ()),
        ("    pass", ("complete",)),
        ("    os.system(command)", ("safe",)),
        ("    password = 'hunter22'\n    return password", ("no secrets",)),
        ("    try:\n        go()\n    except:\n        return None", ("honest",)),
        ("    x = 1\n    x = 1\n    x = 1", ("readable",)),
        ("    for a in b:\n        pass\n    return a", ()),
    ],
)
def test_the_constitution_finds_what_it_forbids(answer: str, broken: tuple[str, ...]) -> None:
    assert read_constitution().violations(answer) == broken


def test_a_constitution_with_a_mistake_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("principles: [{name: a, text: b, forbids: ['(']}]")
    with pytest.raises(ConfigError, match="no regular expression"):
        read_constitution(tmp_path / "c.yaml")
