"""What Git is told of the environment repository's address: never an option, another transport, or a password."""

import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.config import Settings
from components.core.errors import ConfigError, OvernightError
from components.release import environment
from components.release.address import parse_address
from components.release.config import ReleaseConfig

CONFIG = ReleaseConfig()


@pytest.mark.parametrize(
    "text",
    [
        "--upload-pack=touch RAN",
        "-c",
        "ext::sh -c 'touch RAN'",
        "fd::17",
        "EXT::sh -c 'touch RAN'",
        "git-remote-ext::x",
        "ftp://host/x",
        "ssh://-oProxyCommand=touch%20RAN/x",
        "ssh://user:hunter2@host/x",
        "git://user:hunter2@host/x",
        "file://user:hunter2@host/x",
        "user:hunter2@host:x.git",
        "https://user:hun/ter2@host/x",
        "https://user:hun#ter2@host/x",
        "https://user:hun?ter2@host/x",
        "https://host/x?private_token=hunter2",
        "https://user:hunter2%0a@host/x",
        "https://user:hunter2@/x",
        "https://host/x\nhunter2",
        "a\0b",
    ],
)
def test_an_address_that_git_must_not_get_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    settings = Settings(state=tmp_path / "state").model_copy(update={"environments_url": text})
    with pytest.raises(ConfigError, match="OVERNIGHT_ENVIRONMENTS_URL") as caught:
        environment.read(settings, "production", CONFIG)
    assert str(caught.value).isprintable() and not {"hunter2", "ter2"} & set(str(caught.value).split())
    assert "ter2" not in str(caught.value)
    assert not Path("RAN").exists()


@pytest.mark.parametrize("text", ["/srv/x.git", "x", "file:///srv/x", "ssh://git@host:22/x", "git@host:x", "git://h/x"])
def test_ordinary_addresses_go_as_they_are(text: str) -> None:
    address = parse_address(text)
    assert (address.url, address.variables) == (text, {})


def test_credentials_are_apart_from_the_address() -> None:
    address = parse_address("https://token:p%40ss:word@host:8443/x.git")
    assert address.url == "https://host:8443/x.git"
    assert "p@ss:word" in address.variables.values() and "p@ss" not in repr(address)
    assert parse_address("https://token@host/x").url == "https://host/x"


class Watching(http.server.BaseHTTPRequestHandler):
    """Asks for a password, and notes what was sent and what every process of this machine was started with."""

    sent: list[str | None]
    arguments: list[bytes]

    def do_GET(self) -> None:
        self.sent.append(self.headers["Authorization"])
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.arguments.append(path.read_bytes())
            except OSError:
                continue
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def port() -> Iterator[int]:
    Watching.sent, Watching.arguments = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Watching) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_password_reaches_the_server_and_no_process_s_arguments(tmp_path: Path, port: int) -> None:
    url = f"http://ada:xyzzy42@127.0.0.1:{port}/environments.git"
    with pytest.raises(OvernightError, match="git ls-remote failed") as caught:
        environment.read(Settings(state=tmp_path, environments_url=url), "production", CONFIG)
    assert "xyzzy42" not in str(caught.value)
    assert "Basic YWRhOnh5enp5NDI=" in Watching.sent, "ada:xyzzy42"
    assert any(b"git-remote-http" in each for each in Watching.arguments), "it looked while git asked"
    assert not any(b"xyzzy42" in each for each in Watching.arguments)
    kept = subprocess.run(["grep", "-r", "xyzzy42", tmp_path], capture_output=True)
    assert kept.stdout == b""
