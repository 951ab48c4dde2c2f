"""A real S3 server (moto) behind a proxy that spoils answers on request: HTTP from end to end."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote

from moto.server import ThreadedMotoServer

Spoil = Literal["unavailable", "cut", "short", "flipped"]


@dataclass
class Faults:
    """What to do to the next answers about keys that end in a suffix, and what was asked for."""

    pending: list[tuple[str, Spoil]] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, range
    lock: threading.Lock = field(default_factory=threading.Lock)

    def spoil(self, suffix: str, how: Spoil, times: int) -> None:
        self.pending += [(suffix, how)] * times

    def take(self, method: str, path: str, extent: str | None) -> Spoil | None:
        with self.lock:
            self.requests.append((method, path, extent))
            for number, (suffix, how) in enumerate(self.pending):
                if method == "GET" and path.endswith(suffix):
                    del self.pending[number]
                    return how
        return None

    def reads(self) -> list[str]:
        """Paths of the objects that were asked for, in the order of the requests."""
        return [path for method, path, _ in self.requests if method == "GET" and not path.endswith("/overnight")]


def _handler(upstream: tuple[str, int], faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            how = faults.take(self.command, unquote(self.path.partition("?")[0]), self.headers.get("Range"))
            if how == "unavailable":
                content = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
                self.reply(503, [("Content-Type", "application/xml")], content, len(content))
                return
            connection = http.client.HTTPConnection(*upstream)
            connection.request(self.command, self.path, body=body or None, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            hop = {"content-length", "connection", "transfer-encoding", "date", "server"}
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in hop]
            length = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else len(content)
            if how == "flipped":
                content = content[:-1] + bytes([content[-1] ^ 1])
            elif how == "short":
                content = content[: len(content) // 2]
                length = len(content)
                headers = [(name, value) for name, value in headers if name.lower() != "content-range"]
            elif how == "cut":
                content = content[: len(content) // 2]
                self.close_connection = True
            self.reply(answer.status, headers, content, length)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815

        def reply(self, status: int, headers: list[tuple[str, str]], content: bytes, length: int) -> None:
            self.send_response(status)
            for name, value in [*headers, ("Content-Length", str(length))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def faulty_s3() -> Iterator[tuple[str, str, Faults]]:
    """Address of the server itself, address of the proxy before it, and the proxy's faults."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    faults = Faults()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler((host, port), faults))
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{port}", f"http://127.0.0.1:{proxy.server_address[1]}", faults
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        server.stop()
