"""A real HTTP server that plays a chat model by a script."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Response:
    """What the server sends; `body` None is a completion with `text`. `keep_bytes` cuts the body."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    keep_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChatServer:
    """Where it listens, and the requests so far: their bodies, with `path` and `authorization`."""

    url: str
    requests: list[dict[str, Any]]


@contextmanager
def chat_server(script: Callable[[dict[str, Any]], str | Response]) -> Iterator[ChatServer]:
    """A server whose reply to each request, as the API has it, is what `script` makes of it."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append({"path": self.path, "authorization": self.headers.get("Authorization"), **body})
            answer = script(body)
            response = answer if isinstance(answer, Response) else Response(text=answer)
            content = response.body
            if content is None:
                words = sum(len(each["content"].split()) for each in body["messages"])
                usage = {"prompt_tokens": words, "completion_tokens": len(response.text.split())}
                content = json.dumps({"choices": [{"message": {"content": response.text}}], "usage": usage}).encode()
            content = content[: response.keep_bytes]
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield ChatServer(url=f"http://127.0.0.1:{server.server_address[1]}/v1", requests=requests)
        finally:
            server.shutdown()
            thread.join()
