"""Answers of a teacher behind a real HTTP server: what is kept, why the rest is dropped, and what a second run asks."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.alignment import instructions
from components.alignment.config import CorpusConfig, CurriculumConfig, InstructionsConfig, TeacherConfig
from components.alignment.examples.examples import examples_of
from components.alignment.examples.instruction import Instruction, read_instructions
from components.alignment.teacher.lessons import TEACHER, answer_in, body_in, lessons, read_prompts
from components.core.config import validate
from components.core.errors import ConfigError, DataError, OvernightError
from components.inference import endpoint
from components.inference.endpoint import Failure
from components.inference.replies import Reply
from tests.inference.chat_server import Response, chat_server

PROMPT = 'def add(a, b):\n    """Add two numbers.\n\n    >>> add(1, 2)\n    3\n    """'
BODY = "    total = a + b\n    return total"
ADD = Instruction(name="add", prompt=PROMPT, answer="    return 0", examples=examples_of(">>> add(1, 2)\n3\n", "add"))
DOCSTRING = '"""Add two numbers."""'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_SECONDS", 0.01)


@pytest.mark.parametrize(
    "reply",
    [
        f"{PROMPT}\n{BODY}",
        f"Sure!\n```python\n{PROMPT}\n{BODY}\n```\nIt adds them.",
        f"```\ndef add(a, b):\n{BODY}\n```",
        f"```py\nclass A:\n    def add(a, b):\n        {DOCSTRING}\n        total = a + b\n        return total\n```",
        f"```python\nadd(1, 2)\n```\n```python\ndef add(a, b):\n{BODY}\n```",
        BODY,
        "total = a + b\nreturn total",
        f"```python\n{BODY}\n```",
    ],
)
def test_a_body_is_read_in_the_forms_that_models_write(reply: str) -> None:
    assert body_in(ADD, reply) == BODY


@pytest.mark.parametrize(
    "reply",
    [
        "I cannot do that for you.",
        f"def add(a, b):\n    {DOCSTRING}\n",
        "def add(a, b):\n    return a\n\ndef add(",
        f"def add(a, b):\n    {DOCSTRING}\n    return (a",
        "(" * 1000,
        "\0",
    ],
)
def test_what_gives_no_body_is_none(reply: str) -> None:
    assert body_in(ADD, reply) is None


def test_a_body_in_one_line_gets_a_line_of_its_own() -> None:
    assert body_in(ADD, "def add(a, b): return a + b") == "    return a + b"


def test_a_decorated_function_inside_keeps_its_decorator() -> None:
    body = "    @cache\n    def inner():\n        return a\n    return inner() + b"
    assert body_in(ADD, f"def add(a, b):\n{body}") == body


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Failure("status 400"), "failed"),
        (Reply(text=" \n"), "empty"),
        (Reply(text=f"{PROMPT}\n{BODY}", finish_reason="length"), "cut"),
        (Reply(text="a b " * 40), "loop"),
        (Reply(text="No."), "broken"),
        (Reply(text=f"    b = [{', '.join(map(str, range(200)))}]\n    return b"), "long"),
    ],
)
def test_a_reply_that_is_no_answer_is_counted(reply: Reply | Failure, problem: str) -> None:
    dropped: Counter[str] = Counter()
    assert answer_in(ADD, reply, dropped, 480) is None and dropped == {problem: 1}


def test_an_answer_to_a_prompt_is_taken_as_it_stands() -> None:
    asked, dropped = replace(ADD, kind="chat"), Counter[str]()
    assert answer_in(asked, Reply(text=" No. \n", finish_reason="stop"), dropped, 2) == "No." and not dropped


def config(url: str, **more: object) -> InstructionsConfig:
    teacher = TeacherConfig.model_validate({"url": url, "model": "big", "licence": "MIT", "number": 24, **more})
    return InstructionsConfig(
        curriculum=CurriculumConfig(tuning=0, heldout=0, pairs=0),
        corpus=CorpusConfig(functions=10, heldout=0, pairs=0, derived=0),
        teacher=teacher,
    )


def name_in(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"]).partition("(")[0].removeprefix("def ")


def scripted(body: dict[str, Any]) -> str:
    """An answer that is right for the functions add_*, and wrong in another way for each of the others."""
    asked, name = body["messages"][-1]["content"], name_in(body)
    answers = {"add": "return a + b", "scale": "return factory", "count": "pass", "root": "return a"}
    return f"{asked}\n    {answers[name.partition('_')[0]]}"


def test_answers_are_verified_and_the_others_counted_by_reason(world: Path) -> None:
    with chat_server(scripted) as server:
        found = lessons(config(server.url), world / "source", world / "tokens", ())
    assert found is not None
    asked = Counter(name_in(each).partition("_")[0] for each in server.requests)
    assert len(server.requests) == 24 == found.record["asked"] and min(asked.values()) > 0 and len(asked) == 4
    assert found.record["dropped"] == {"unknown": asked["scale"], "idle": asked["count"], "examples": asked["root"]}
    assert len(found.instructions) == asked["add"]
    for each in found.instructions:
        assert (each.answer, each.source, each.licence, each.use) == ("    return a + b", TEACHER, "MIT", "tuning")
    assert {each["temperature"] for each in server.requests} == {0} and found.record["model"] == "big"


def test_what_is_learned_already_is_not_asked(world: Path) -> None:
    with chat_server(scripted) as server:
        lessons(config(server.url, number=8), world / "source", world / "tokens", ())
        learned = {each["messages"][-1]["content"] for each in server.requests}
        lessons(config(server.url, number=8), world / "source", world / "tokens", learned)
    asked = {each["messages"][-1]["content"] for each in server.requests[8:]}
    assert len(learned) == len(asked) == 8 and not learned & asked


def test_a_teacher_that_goes_away_leaves_one_line_and_the_rest_is_asked_later(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_TEACHER_PARALLEL_REQUESTS", "1")
    monkeypatch.setenv("OVERNIGHT_TEACHER_KEY", "secret-1")
    replies = 0

    def script(body: dict[str, Any]) -> str | Response:
        nonlocal replies
        replies += 1
        return scripted(body) if replies <= 9 else Response(status=429, headers={"Retry-After": "0"})

    with chat_server(script) as server:
        with pytest.raises(OvernightError, match=r"^teacher at http.*status 429 after 9 of 24 replies, which are"):
            lessons(config(server.url), world / "source", world / "tokens", ())
        before, replies = len(server.requests), -1000
        found = lessons(config(server.url), world / "source", world / "tokens", ())
    assert found is not None and len(server.requests) - before == 15
    assert (found.usage["new_replies"], found.usage["kept_replies"]) == (15, 9)
    assert {each["authorization"] for each in server.requests} == {"Bearer secret-1"}


def test_a_cut_reply_fails_alone_and_one_line_says_who_needs_a_key(world: Path) -> None:
    def script(body: dict[str, Any]) -> str | Response:
        cut = name_in(body).startswith("root_")
        return Response(text=scripted(body), keep_bytes=9) if cut else scripted(body)

    with chat_server(script) as server:
        found = lessons(config(server.url), world / "source", world / "tokens", ())
    assert found is not None and found.record["dropped"]["failed"] > 0 and found.instructions
    with (
        chat_server(lambda _: Response(status=401)) as server,
        pytest.raises(OvernightError, match="status 401, set OVERNIGHT_TEACHER_KEY"),
    ):
        lessons(config(server.url), world / "source", world / "tokens", ())


def test_the_stage_learns_answers_and_a_second_run_asks_nothing(world: Path, tmp_path: Path) -> None:
    paths = {name: world / name for name in ("source", "tokens")}
    with chat_server(scripted) as server:
        settings = config(server.url)
        first = instructions.run(settings, **paths, out=tmp_path / "first")
    second = instructions.run(settings, **paths, out=tmp_path / "second")  # nobody listens any more
    assert first.digest == second.digest and second.run[TEACHER]["kept_replies"] == 24
    taught = [each for each in read_instructions(tmp_path / "first", ["tuning"]) if each.source == TEACHER]
    record = first.statistics[TEACHER]
    assert record["learned"] == len(taught) > 0 and record["learned"] + sum(record["dropped"].values()) == 24
    assert (record["model"], record["licence"], first.statistics["licences"]) == ("big", "MIT", ["MIT"])
    prompts = [each.prompt for each in read_instructions(tmp_path / "first", ["tuning"])]
    assert len(set(prompts)) == len(prompts)


def test_a_persons_prompts_are_asked_without_a_system_text_and_held_out_ones_stay_so(
    world: Path, tmp_path: Path
) -> None:
    held_out = read_instructions(world / "instructions", ["paraphrase"])[0].prompt
    prompts = ("Say hello.", "Say hello.", "Say bye.", held_out)
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"prompt": each}) for each in prompts))
    paths = {name: world / name for name in ("source", "tokens")}
    with chat_server(lambda body: f"Yes: {body['messages'][-1]['content']}") as server:
        asked = config(server.url, prompts=str(tmp_path / "p.jsonl")).model_copy(
            update={"curriculum": CurriculumConfig(tuning=0, heldout=6, pairs=0)}
        )
        manifest = instructions.run(asked, **paths, out=tmp_path / "out")
    taught = [each for each in read_instructions(tmp_path / "out", ["tuning"]) if each.source == TEACHER]
    assert [(each.prompt, each.answer) for each in taught] == [
        ("Say hello.", "Yes: Say hello."),
        ("Say bye.", "Yes: Say bye."),
    ]
    assert manifest.statistics["dropped"]["repeated"] >= 2
    assert all(len(each["messages"]) == 1 for each in server.requests)
    assert str(tmp_path / "p.jsonl") in asked.named_files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\n{"question": "b"}', r"p\.jsonl: line 2: prompt: found NoneType, needed a text"),
        ('{"prompt": " "}', r"line 1: prompt: found an empty text, needed a text"),
        ('"Say hello."', r"line 1: found str, needed an object with a prompt"),
        ("{", r"line 1: not JSON"),
        ("\n", r"no prompt in it, needed a JSON object a line"),
    ],
)
def test_a_file_of_prompts_that_is_none_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "needed either a directory or a url"),
        ({"directory": "a", "url": "http://h/v1", "model": "m"}, "needed either a directory or a url"),
        ({"url": "http://h/v1"}, "a url needs the name of a model"),
        ({"directory": "a", "model": "m"}, "a url needs the name of a model, and a directory has none"),
        ({"directory": "a", "licence": "CC-BY-NC-4.0"}, "CC-BY-NC-4.0 is not let in by instructions.teacher.licences"),
        ({"directory": "a", "licence": "free for all!"}, "'free for all!' is not an SPDX expression"),
        ({"url": "http://u:hunter2@h/v1", "model": "m"}, "carries a password.*set OVERNIGHT_TEACHER_KEY instead"),
    ],
)
def test_a_teacher_that_may_not_teach_is_refused_in_one_line(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        validate({"teacher": {"licence": "MIT", **values}}, InstructionsConfig, "params.yaml", "instructions")
    assert "\n" not in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_licence_may_be_let_in() -> None:
    value = {"directory": "a", "licence": "CC-BY-4.0", "licences": ["CC-BY-4.0"]}
    config = validate({"teacher": value}, InstructionsConfig, "params.yaml", "instructions")
    assert config.teacher is not None and config.teacher.licence == "CC-BY-4.0"
