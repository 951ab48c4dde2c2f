"""A local model as judge, by a real engine and by one that answers by a rule."""

import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from components.alignment.examples.chat import answer_tokens, chat_of, prompt_tokens
from components.alignment.rewards.constitution import Constitution, Principle
from components.alignment.rewards.judge import AnswerPair
from components.alignment.rewards.model_judge import LikelihoodJudge, LocalChat
from components.inference.endpoint import Failure
from components.inference.open import open_engine
from components.tokens.encoding.chat_form import ROLES
from components.tokens.encoding.codec import TextCodec
from tests.evaluation.chat_engine import ChatEngine

SHORT = Constitution(principles=(Principle(name="short", text="Be short.", weight=2, forbids=("never",)),))
TEXTS = ["    return a", "    return total + b"]


@pytest.fixture(scope="module")
def codec(world: Path) -> TextCodec:
    return TextCodec(world / "base")


@pytest.mark.numeric
def test_the_model_scores_by_the_mean_probability_of_the_answer_under_the_constitution(
    world: Path, codec: TextCodec
) -> None:
    answers = [("def f():", text) for text in TEXTS]
    with closing(open_engine(world / "base", "ctranslate2")) as engine:
        judge = LikelihoodJudge(engine, codec, SHORT, context_tokens=256, min_gap=0.05)
        scores = judge.scores(answers)
        (broken,) = judge.scores([("def f():", "never")])
        small = LikelihoodJudge(engine, codec, SHORT, context_tokens=8, min_gap=0.05)
        assert small.scores(answers) == [None, None]
        assert [each.outcome for each in small.judge([AnswerPair(prompt="def f():", first="a", second="b")])] == [
            "failed"
        ]
    model = AutoModelForCausalLM.from_pretrained(world / "base", dtype=torch.float32)
    for text, score in zip(TEXTS, scores, strict=True):
        target = answer_tokens(codec.encode(text))
        ids = torch.tensor([prompt_tokens(codec.encode("def f():"), codec.encode("Be short.")) + target])
        with torch.inference_mode():
            logs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-len(target) :]
        assert score == pytest.approx(math.exp(float(logs.mean())), rel=1e-3)
    assert broken is not None and -2 < broken < -1, "a broken principle costs its weight"


def test_a_constitution_is_cut_to_the_room_that_the_chat_form_leaves(
    world: Path, codec: TextCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form that puts more around a turn than one token leaves less of it; nothing is longer than the context."""
    turn = tuple(range(20, 25))
    form = replace(chat_of(codec.special), opening=dict.fromkeys(ROLES, turn), closing=dict.fromkeys(ROLES, (8, *turn)))
    monkeypatch.setattr(codec, "special", replace(codec.special, chat=form))
    with closing(open_engine(world / "base", "ctranslate2")) as engine:
        scored: list[int] = []
        monkeypatch.setattr(engine, "score", lambda rows: [scored.append(len(each)) or np.zeros(9) for each in rows])
        judge = LikelihoodJudge(engine, codec, SHORT, context_tokens=48, min_gap=0.05)
        assert judge.scores([("def f():", text) for text in TEXTS]) != [None, None]
    assert scored and max(scored) <= 48


@pytest.mark.parametrize(
    ("scores", "grade"),
    [
        ((0.5, 0.5), 0),
        ((0.5, 0.46), 0),
        ((0.6, 0.5), 1),
        ((0.5, 0.6), -1),
        ((0.7, 0.5), 2),
        ((0.1, 0.5), -3),
        ((0, 2), -4),
    ],
)
def test_a_larger_difference_of_scores_is_a_higher_grade(
    codec: TextCodec, scores: tuple[float, float], grade: int
) -> None:
    judge = LikelihoodJudge(ChatEngine(codec, str), codec, SHORT, context_tokens=256, min_gap=0.075)
    judge._scores = {("p", "a"): scores[0], ("p", "b"): scores[1]}
    (verdict,) = judge.judge([AnswerPair(prompt="p", first="a", second="b")])
    assert (verdict.grade, verdict.outcome) == (grade, "preferred" if grade else "tie")
    assert verdict.by_order == (grade, grade), "the order means nothing to it"


def test_the_model_is_asked_in_words_where_there_is_room(codec: TextCodec) -> None:
    engine = ChatEngine(codec, lambda text: f"say {text.count('x')}", context_tokens=60)
    chat = LocalChat(engine, codec)
    short, long = chat.replies("be brief", ["x", "x" * 99], 20)
    assert short == "say 1"
    assert isinstance(long, Failure) and "more than the context" in long.reason
    assert engine.asked == [prompt_tokens(codec.encode("x"), codec.encode("be brief"))]
