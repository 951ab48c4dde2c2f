"""What the gateway counts, and which model gave which answer.

Counters and histograms for Prometheus at /metrics, and one JSON line per answered request in
<state>/responses/<day>.jsonl: the id that the client got, the digest of the model that answered. Texts are not kept.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from components.serving.versions import WeightedVersion

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Telemetry:
    """The gateway's own registry, so that several gateways in one process do not meet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "overnight_requests",
            "requests by model version and HTTP status",
            ("version", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "overnight_request_seconds",
            "time to the whole answer",
            ("version",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter("overnight_tokens", "tokens by kind", ("version", "kind"), registry=self._registry)

    def refused(self, status: int, target: WeightedVersion | None) -> None:
        """Count a request that got an error; `target` is None when no version was chosen."""
        self._requests.labels(str(target.version) if target else "none", str(status)).inc()

    def answered(
        self, response_id: str, target: WeightedVersion, *, seconds: float, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Count an answer, and note which model gave it."""
        version = str(target.version)
        self._requests.labels(version, "200").inc()
        self._seconds.labels(version).observe(seconds)
        self._tokens.labels(version, "prompt").inc(prompt_tokens)
        self._tokens.labels(version, "completion").inc(completion_tokens)
        now = datetime.now(UTC)
        line = {
            "id": response_id,
            "at": now.isoformat(timespec="milliseconds"),
            "version": target.version,
            "digest": target.digest,
            "seconds": round(seconds, 6),
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
        }
        path = self.directory / f"{now.date().isoformat()}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def find_response(directory: Path, response_id: str) -> dict[str, Any] | None:
    """The line of an answer by the id that its client got, the newest day first; None when it is not known."""
    for path in sorted(directory.glob("*.jsonl"), reverse=True):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if response_id in line and line.endswith("\n"):
                    record: dict[str, Any] = json.loads(line)
                    if record["id"] == response_id:
                        return record
    return None
