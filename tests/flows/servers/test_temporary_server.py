"""The Prefect API of one command, which is up for a whole cycle: guarded as the one of `overnight up`."""

from pathlib import Path

import httpx
import pytest

from components.core.config import Settings
from components.machine import service_keys as keys
from components.machine.guard import USER
from flows.servers.temporary_server import starting
from flows.servers.variables import tool_variables


def test_it_asks_for_the_key_and_answers_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path))
    settings = Settings(state=tmp_path)
    with starting(settings) as server:
        server.wait()
        url, key = f"{server.api_url}/flows/filter", (USER, keys.services_key(settings))
        assert httpx.post(url, json={}, auth=key, timeout=60).status_code == 200
        for auth in (None, (USER, "0")):
            assert httpx.post(url, json={}, auth=auth, timeout=60).status_code == 401
        for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
            assert httpx.post(url, json={}, auth=key, headers=headers, timeout=60).status_code == 403
    assert ":".join(key) == tool_variables(settings)["PREFECT_API_AUTH_STRING"]


def test_the_key_goes_to_no_server_elsewhere(tmp_path: Path) -> None:
    for url in ("http://elsewhere/api", "http://127.0.0.1:4200/api"):
        away = tool_variables(Settings(state=tmp_path, prefect_url=url, mlflow_url="http://elsewhere"))
        assert keys.services_key(Settings(state=tmp_path)) not in str(away)
