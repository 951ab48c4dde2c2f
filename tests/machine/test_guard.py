"""Who passes the guard: a request to loopback by name, no page of another origin, with the key where one is needed."""

import asyncio
import base64
from typing import Any

import pytest

from components.machine.guard import Guard, Message

PORT, KEY = 4321, "a" * 64


async def application(scope: Message, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"private"})


GUARDED = Guard(application, "127.0.0.1", PORT, KEY, lambda path: path != "/health")
KEYLESS = Guard(application, "127.0.0.1", PORT)


def ask(guard: Guard, *headers: tuple[str, str], path: str = "/", kind: str = "http") -> list[Message]:
    """What the guard sends back."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    asyncio.run(guard({"type": kind, "path": path, "headers": raw}, None, send))  # type: ignore[arg-type]
    return sent


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


HOST = ("host", f"127.0.0.1:{PORT}")


@pytest.mark.parametrize(
    "hosts",
    [
        ("evil.example",),
        (f"evil.example:{PORT}",),
        ("127.0.0.1.evil.example",),
        ("localhost.",),
        ("[::1]:4321",),
        ("",),
        (),
        (f"127.0.0.1:{PORT}", "evil.example"),  # two of them: a proxy and a server may differ in which one counts
        ("127.0.0.1@evil.example",),
        ("\xe9vil",),
    ],
)
def test_a_name_that_is_not_loopback_is_refused(hosts: tuple[str, ...]) -> None:
    for guard in (GUARDED, KEYLESS):
        start, body = ask(guard, *(("host", each) for each in hosts), ("authorization", f"Bearer {KEY}"))
        assert start["status"] == 403 and b"private" not in body["body"] and b"127.0.0.1, localhost" in body["body"]


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        f"https://127.0.0.1:{PORT}",
        "http://127.0.0.1:8080",  # another user's page on this very machine
        f"http://127.0.0.1:{PORT}.evil.example",
        f"HTTP://127.0.0.1:{PORT}/",
    ],
)
def test_a_page_of_another_origin_is_refused_even_with_the_key(origin: str) -> None:
    for guard in (GUARDED, KEYLESS):
        start, _ = ask(guard, HOST, ("origin", origin), ("authorization", f"Bearer {KEY}"))
        assert start["status"] == 403
        (closed,) = ask(guard, HOST, ("origin", origin), kind="websocket")
        assert closed["type"] == "websocket.close"


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        ("Bearer",),
        (f"Bearer {KEY[:-1]}",),
        (f"Bearer {KEY}x",),
        (f"Token {KEY}",),
        (KEY,),
        ("Basic ???",),
        ("Basic \xe9",),
        (basic("overnight", ""),),
        (basic("root", KEY),),
        (basic("", KEY),),
        (f"Bearer {KEY}", "Bearer x"),
    ],
)
def test_without_the_key_a_browser_is_asked_for_it(values: tuple[str, ...]) -> None:
    start, body = ask(GUARDED, HOST, *(("authorization", each) for each in values))
    assert start["status"] == 401 and b"private" not in body["body"]
    assert dict(start["headers"])[b"www-authenticate"].startswith(b"Basic")
    (closed,) = ask(GUARDED, HOST, *(("authorization", each) for each in values), kind="websocket")
    assert closed["type"] == "websocket.close"


def test_the_key_opens_and_health_needs_none() -> None:
    for value in (f"Bearer {KEY}", basic("overnight", KEY), f"bearer  {KEY}"):
        for host in (HOST[1], f"LOCALHOST:{PORT}", "localhost"):
            assert ask(GUARDED, ("host", host), ("authorization", value))[0]["status"] == 200
    own = ("origin", f"http://localhost:{PORT}")
    assert ask(GUARDED, HOST, own, ("authorization", f"Bearer {KEY}"))[0]["status"] == 200
    assert ask(GUARDED, HOST, path="/health")[0]["status"] == 200
    assert ask(KEYLESS, HOST)[0]["status"] == 200


def test_what_is_no_request_reaches_the_application() -> None:
    assert ask(GUARDED, kind="lifespan")[0]["status"] == 200
