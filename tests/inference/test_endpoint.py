"""The client of chat models against real servers on loopback: what goes wrong on a network, and what is kept."""

import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.core.config import read_settings
from components.core.errors import ConfigError, OvernightError
from components.inference import endpoint
from components.inference.endpoint import ChatEndpoint, Failure
from components.inference.replies import REPLIES, Reply, ReplyCache
from tests.inference.chat_server import Response, chat_server

ADVICE = "unset OVERNIGHT_JUDGE_URL"
KEY = "sk-secret-123"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_SECONDS", 0.01)


def question_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def upper(body: dict[str, Any]) -> str:
    return question_of(body).upper()


def test_replies_come_in_the_order_of_the_questions_and_equal_ones_are_asked_once() -> None:
    with chat_server(upper) as server:
        chat = ChatEndpoint(server.url, "m", ADVICE)
        assert chat.replies("be brief", ["a", "b", "a", "c"], 5) == ["A", "B", "A", "C"]
    assert sorted(map(question_of, server.requests)) == ["a", "b", "c"]
    assert {each["path"] for each in server.requests} == {"/v1/chat/completions"}
    assert all((each["model"], each["temperature"], each["max_tokens"]) == ("m", 0, 5) for each in server.requests)


def test_no_more_requests_run_at_one_time_than_are_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def script(body: dict[str, Any]) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return upper(body)

    with chat_server(script) as server:
        ChatEndpoint(server.url, "m", ADVICE, parallel_requests=3).replies("s", [str(each) for each in range(12)], 5)
    assert most == 3


def test_the_settings_say_who_is_asked_and_the_key_is_sent_and_never_shown(tmp_path: Path) -> None:
    def refuse(body: dict[str, Any]) -> Response:
        return Response(status=400, body=f"no {KEY} here".encode())

    environ = {"OVERNIGHT_STATE": str(tmp_path / "s"), "OVERNIGHT_JUDGE_KEY": KEY, "OVERNIGHT_JUDGE_MODEL": "big"}
    assert ChatEndpoint.of_settings(read_settings(environ), ADVICE) is None
    with chat_server(refuse) as server:
        settings = read_settings({**environ, "OVERNIGHT_JUDGE_URL": server.url})
        chat = ChatEndpoint.of_settings(settings, ADVICE)
        assert chat is not None and chat.model == "big"
        with pytest.raises(OvernightError, match=r"the first: status 400: no \*\*\* here"):
            chat.replies("s", ["q"], 5)
    assert server.requests[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(settings) and KEY not in settings.model_dump_json()


@pytest.mark.parametrize("key", ["a b", "é", "line\nline", "-with a space"])
def test_a_key_that_no_header_holds_is_refused_without_showing_it(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=r"OVERNIGHT_JUDGE_KEY is \*\*\*; needed printable ASCII") as caught:
        read_settings({"OVERNIGHT_STATE": str(tmp_path), "OVERNIGHT_JUDGE_KEY": key})
    assert key not in str(caught.value)


def test_a_key_may_begin_as_an_option_does(tmp_path: Path) -> None:
    settings = read_settings({"OVERNIGHT_STATE": str(tmp_path), "OVERNIGHT_JUDGE_KEY": "-k"})
    assert settings.judge_key is not None and settings.judge_key.get_secret_value() == "-k"


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://host/v1", "http://", "http://[::1"])
def test_an_address_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(ConfigError, match=r"needed an address such as http://127\.0\.0\.1:8000/v1; unset"):
        ChatEndpoint(url, "m", ADVICE)


def test_a_busy_endpoint_is_asked_again_after_the_time_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    replies: list[str | Response] = [
        Response(status=429, headers={"Retry-After": "0"}),
        Response(status=503, headers={"Retry-After": "7200"}),
        Response(status=200, text="yes"),
    ]
    monkeypatch.setattr(endpoint, "LONGEST_WAIT_SECONDS", 0.3)
    with chat_server(lambda body: replies.pop(0)) as server:
        begin = time.monotonic()
        assert ChatEndpoint(server.url, "m", ADVICE).replies("s", ["q"], 5) == ["yes"]
    assert len(server.requests) == 3
    assert time.monotonic() - begin >= 0.3, "the second wait is long, but no longer than the cap"


def test_both_forms_of_retry_after_are_read() -> None:
    def asked(value: str) -> float:
        return endpoint._retry_after_seconds(httpx.Response(429, headers={"Retry-After": value}))

    assert asked("17") == 17.0
    assert 25 < asked(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)) <= 30
    assert asked("soon") == asked("-5") == 0.0


def test_a_request_that_is_refused_or_cut_fails_alone(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> str | Response:
        question = question_of(body)
        if question == "long":
            return Response(status=400, body=b"longer than the context")
        return Response(text="cut", keep_bytes=20) if question == "cut" else upper(body)

    with chat_server(script) as server:
        chat = ChatEndpoint(server.url, "m", ADVICE, cache=ReplyCache(tmp_path / "s" / REPLIES))
        for _ in range(2):
            first, long, cut, last = chat.replies("s", ["a", "long", "cut", "b"], 5)
            assert (first, last) == ("A", "B")
            assert long == Failure("status 400: longer than the context")
            assert isinstance(cut, Failure) and cut.reason.startswith("its reply is no chat completion")
    questions = [question_of(each) for each in server.requests]
    assert (questions.count("a"), questions.count("b"), questions.count("long")) == (1, 1, 2)
    assert questions.count("cut") == 2 * endpoint.TRIES, "a cut reply is asked for again, and never kept"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b"\xff"])
def test_what_is_no_completion_is_one_line(body: bytes) -> None:
    with (
        chat_server(lambda _: Response(body=body)) as server,
        pytest.raises(OvernightError, match=r"the first: its reply is no chat completion") as caught,
    ):
        ChatEndpoint(server.url, "m", ADVICE).replies("s", ["q"], 5)
    assert "\n" not in str(caught.value)


def test_an_endpoint_that_wants_another_key_is_not_asked_again() -> None:
    with (
        chat_server(lambda _: Response(status=401)) as server,
        pytest.raises(OvernightError, match="OVERNIGHT_JUDGE_KEY"),
    ):
        ChatEndpoint(server.url, "m", ADVICE).replies("s", ["q"], 5)
    assert len(server.requests) == 1


def test_a_slow_endpoint_is_one_line() -> None:
    over = threading.Event()
    with chat_server(lambda _: over.wait(5) and "") as server:  # type: ignore[arg-type, return-value]
        with pytest.raises(OvernightError, match=r"judge at http://127.*timed out; start it, or unset"):
            ChatEndpoint(server.url, "m", ADVICE, timeout_seconds=0.05).replies("s", ["q"], 5)
        over.set()


def test_an_endpoint_that_goes_away_leaves_what_it_said_and_the_rest_is_asked_later(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "s" / REPLIES)
    alive = 5

    def script(body: dict[str, Any]) -> str | Response:
        nonlocal alive
        alive -= 1
        return upper(body) if alive >= 0 else Response(status=502)

    questions = [f"q{number}" for number in range(40)]
    with chat_server(script) as server:
        chat = ChatEndpoint(server.url, "m", ADVICE, cache=cache, parallel_requests=2)
        with pytest.raises(
            OvernightError, match=r"status 502 after 5 of 40 replies, which are kept: another run"
        ) as caught:
            chat.replies("s", questions, 5)
        assert "\n" not in str(caught.value)
        assert len(server.requests) < 30, "it is not asked everything when it is gone"
        alive, before = 1000, len(server.requests)
        again = ChatEndpoint(server.url, "m", ADVICE, cache=cache)
        assert again.replies("s", questions, 5) == [each.upper() for each in questions]
        assert len(server.requests) - before == 35
        assert (again.usage.new_replies, again.usage.kept_replies) == (35, 5)
    assert again.replies("s", questions, 5)[0] == "Q0", "nothing is asked any more"
    with pytest.raises(OvernightError, match="refused"):
        again.replies("s", ["another"], 5)


def test_tokens_and_cost_are_counted_and_what_is_kept_costs_nothing(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "s" / REPLIES)
    with chat_server(upper) as server:
        first = ChatEndpoint(server.url, "m", ADVICE, cache=cache, prices=(2.0, 10.0))
        first.replies("one two", ["a b", "c"], 5)
        second = ChatEndpoint(server.url, "m", ADVICE, cache=cache, prices=(2.0, 10.0))
        second.replies("one two", ["a b", "c"], 5)
        assert ChatEndpoint(server.url, "m", ADVICE).usage.cost is None
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (4 + 3, 2 + 1)
    assert first.usage.cost == pytest.approx((7 * 2 + 3 * 10) / 1e6)
    assert (second.usage.prompt_tokens, second.usage.completion_tokens, second.usage.cost) == (7, 3, 0.0)


def test_another_model_instruction_or_length_is_another_question(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "s" / REPLIES)
    with chat_server(upper) as server:
        for model, system, tokens in (("m", "s", 5), ("n", "s", 5), ("m", "t", 5), ("m", "s", 6), ("m", "s", 5)):
            ChatEndpoint(server.url, model, ADVICE, cache=cache).replies(system, ["q"], tokens)
    assert len(server.requests) == 4


def test_replies_are_for_this_user_alone_and_shared_by_threads_and_processes(tmp_path: Path) -> None:
    path = tmp_path / "state" / REPLIES
    cache = ReplyCache(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    code = (
        "import sys; from pathlib import Path; from components.inference.replies import Reply, ReplyCache\n"
        "for n in range(40): ReplyCache(Path(sys.argv[1])).keep(f'process {n}', Reply(text=str(n)))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as process, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: cache.keep(f"thread {n}", Reply(text=str(n), prompt_tokens=n)), range(80)))
    assert process.returncode == 0
    assert cache.find("process 39") == Reply(text="39")
    assert cache.find("thread 79") == Reply(text="79", prompt_tokens=79)
    cache.keep("thread 79", Reply(text="another"))
    assert cache.find("thread 79") == Reply(text="79", prompt_tokens=79), "the first reply stays"
    assert cache.find("nothing") is None


def test_a_reply_says_why_it_ended_and_a_file_of_older_code_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s" / REPLIES
    path.parent.mkdir(mode=0o700)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE replies (digest TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER, "
            "completion_tokens INTEGER) WITHOUT ROWID"
        )
        connection.execute("INSERT INTO replies VALUES ('old', 'kept', 1, 2)")
    connection.close()
    path.chmod(0o600)
    cache = ReplyCache(path)
    assert cache.find("old") == Reply(text="kept", prompt_tokens=1, completion_tokens=2)
    body = b'{"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}'
    with chat_server(lambda _: Response(body=body)) as server:
        chats = [ChatEndpoint(server.url, "m", ADVICE, cache=ReplyCache(path)) for _ in range(2)]
        replies = [chat.completions("", ["q"], 5)[0] for chat in chats]
    assert replies == [Reply(text="a", finish_reason="length")] * 2 and len(server.requests) == 1
    assert all(isinstance(each, Reply) and each.is_cut for each in replies)
    assert [each["role"] for each in server.requests[0]["messages"]] == ["user"]


def test_a_teacher_is_called_one_and_samples_as_it_is_told(tmp_path: Path) -> None:
    with chat_server(lambda body: Response(status=401) if body["temperature"] else "yes") as server:
        assert ChatEndpoint(server.url, "m", ADVICE, role="teacher").replies("s", ["q"], 5) == ["yes"]
        warm = ChatEndpoint(server.url, "m", ADVICE, role="teacher", temperature=0.7)
        with pytest.raises(OvernightError, match=r"^teacher at http.*set OVERNIGHT_TEACHER_KEY; start it, or unset"):
            warm.replies("s", ["q"], 5)
    assert server.requests[1]["temperature"] == 0.7


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no database" * 99), lambda path: path.mkdir()])
def test_a_file_of_replies_that_is_none_is_one_line(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    spoil(tmp_path / "s" / REPLIES)
    with pytest.raises(OvernightError, match=r"replies.db cannot be used .* delete the file and they are asked again"):
        ReplyCache(tmp_path / "s" / REPLIES)


def test_a_reply_that_could_not_be_kept_is_an_error(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "s" / REPLIES)
    with sqlite3.connect(tmp_path / "s" / REPLIES) as connection:
        connection.execute("DROP TABLE replies")
    connection.close()
    with pytest.raises(OvernightError, match="no such table"):
        cache.keep("a", Reply(text="b"))
