"""Who may speak to a service on the loopback address, which every user and every page in a browser can reach.

A page of evil.example may make its own name point to 127.0.0.1 (DNS rebinding), and may send simple requests anywhere.
So a request must be addressed to the loopback host by name, must not come from a page of another origin (the same host
on another port is one), and must show the key where the service has one.
Covers: HTTP and WebSocket, as an ASGI middleware around any application.  Not covered: how many requests.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
USER = "overnight"
POLICY_VIOLATION = 1008


class Guard:
    """An ASGI application that hands to another one only what may pass.

    Args:
        host, port: where the service listens
        key: what a request must show, as the password of USER or as a bearer token
        needs_key: whether a path needs it; by default every path, where there is a key
    """

    def __init__(
        self,
        application: Application,
        host: str,
        port: int,
        key: str | None = None,
        needs_key: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self._application = application
        self._names = {host, "127.0.0.1", "localhost"}
        self._origins = {f"http://{name}:{port}" for name in self._names}
        self._key = key.encode() if key is not None else None
        self._needs_key = needs_key

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401 or 403."""
        if scope["type"] in ("http", "websocket"):
            refusal = self._refusal(scope)
            if refusal is not None:
                await _answer(scope, send, *refusal)
                return
        await self._application(scope, receive, send)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason of a request that may not pass."""
        headers = scope["headers"]
        if not {_name(each) for each in _values(headers, b"host")} <= self._names or not _values(headers, b"host"):
            return 403, f"the Host header must be one of {', '.join(sorted(self._names))}"
        if not set(_values(headers, b"origin")) <= self._origins:
            return 403, "pages of another origin may not ask"
        if self._key is not None and self._needs_key(scope["path"]) and not self._shown(headers):
            return 401, f"a key is needed: user {USER}, and the password that `overnight up` names"
        return None

    def _shown(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether exactly one Authorization header shows the key."""
        values = _values(headers, b"authorization")
        if len(values) != 1 or self._key is None:
            return False
        scheme, _, credentials = values[0].partition(" ")
        shown = credentials.strip().encode("latin-1")
        if scheme.lower() == "basic":
            try:
                user, _, shown = base64.b64decode(shown, validate=True).partition(b":")
            except binascii.Error:
                return False
            if user != USER.encode():
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(shown, self._key)


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


async def _answer(scope: Message, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        # Before it was accepted: the server answers the handshake with 403.
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
        return
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="overnight"'))  # a browser then asks for the key
    # OpenAI's shape, which the gateway's clients expect.
    error = {"message": reason, "type": "invalid_request_error", "param": None, "code": HTTPStatus(status).name.lower()}
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})
