"""The running stack as strangers see it: a user of the machine without the key, and a page in a browser."""

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import psutil

# One that changes something of each service that Ray's processes offer: keys, jobs, tasks, leases, objects, events.
RAY_METHODS = (
    "/ray.rpc.InternalKVGcsService/InternalKVPut",
    "/ray.rpc.JobInfoGcsService/AddJob",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.NodeManagerService/RequestWorkerLease",
    "/ray.rpc.ObjectManagerService/Push",
    "/ray.rpc.RayletDriver/Init",
    "/ray.rpc.events.EventAggregatorService/AddEvents",
)
PAGE = "Origin: http://evil.example"
REBOUND = "Host: evil.example"
TEXT = "Content-Type: text/plain"  # a page may send it anywhere without asking first
DEPLOYMENT = json.dumps({"name": "x", "flow_id": "0" * 32, "job_variables": {"command": "touch /tmp/x"}}).encode()

# What changes or tells something of each service: service, method, path, body.
REQUESTS = (
    ("prefect", "POST", "/api/deployments/", DEPLOYMENT),
    ("prefect", "POST", "/api/flows/", b'{"name": "x"}'),
    ("prefect", "PATCH", "/api/work_pools/overnight", b'{"is_paused": true}'),
    ("prefect", "DELETE", "/api/work_pools/overnight", b""),
    ("prefect", "POST", "/api/admin/database/clear", b'{"confirm": true}'),
    ("prefect", "GET", "/api/admin/settings", b""),
    ("prefect", "POST", "/api/logs/filter", b"{}"),
    ("prefect", "GET", "/openapi.json", b""),
    ("mlflow", "POST", "/api/2.0/mlflow/registered-models/create", b'{"name": "overnight"}'),
    ("mlflow", "POST", "/ajax-api/2.0/mlflow/registered-models/create", b'{"name": "overnight"}'),
    ("mlflow", "POST", "/api/2.0/mlflow/experiments/delete", b'{"experiment_id": "0"}'),
    ("mlflow", "POST", "/graphql", b'{"query": "{__typename}"}'),
    ("mlflow", "GET", "/api/2.0/mlflow/experiments/search?max_results=1", b""),
    ("mlflow", "GET", "/get-artifact?path=x&run_uuid=0", b""),
)
HTTP2_SETTINGS = b"\x00\x00"
SILENT, HTTP, GRPC = "silent", "http", "grpc"


def processes(root: Path) -> Iterator[psutil.Process]:
    """Those that work in a folder."""
    for each in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            if Path(each.cwd()).is_relative_to(root):
                yield each


def listeners(root: Path) -> dict[int, tuple[str, str]]:
    """Port: address and command of every process of a workspace that listens on TCP."""
    found = {each.pid: each for each in processes(root)}
    return {
        each.laddr.port: (each.laddr.ip, " ".join(found[each.pid].cmdline()))
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.pid in found
    }


def request(port: int, method: str, path: str, headers: Iterable[str] = (), body: bytes = b"") -> bytes:
    """The beginning of what a port answers to an HTTP request, as raw bytes: clients would repair the request."""
    lines = [f"{method} {path} HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    if not any(each.lower().startswith("host:") for each in headers):
        lines.insert(1, f"Host: 127.0.0.1:{port}")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        answer = b""
        while len(answer) < 65536 and (part := connection.recv(65536)):
            answer += part
            if answer.startswith(HTTP2_SETTINGS):
                break
        return answer


def status(port: int, method: str, path: str, headers: Iterable[str] = (), body: bytes = b"") -> int:
    """The status that a port answers."""
    return int(request(port, method, path, headers, body).split()[1])


def kind(port: int) -> str:
    """What a port speaks."""
    answer = request(port, "GET", "/")
    return HTTP if answer.startswith(b"HTTP/") else GRPC if answer.startswith(HTTP2_SETTINGS) else SILENT


def ray_answers(port: int) -> set[str]:
    """What a port of Ray says to calls without a token."""
    codes = set()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in RAY_METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=30)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    return codes
