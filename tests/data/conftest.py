"""Shared by the data tests: a state directory of their own, small corpora, one local Ray."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from components.core import artifact
from components.core.artifact import Manifest
from components.data import ingest
from components.data.config import IngestConfig
from components.data.documents.document import SCHEMA, ShardWriter, document_id
from components.data.sources.config import DirectorySource
from components.machine.cluster import connect

with warnings.catch_warnings():
    # Its Google parts warn on import that an optional gRPC package is absent; nothing here uses them.
    warnings.simplefilter("ignore", ImportWarning)
    import great_expectations  # noqa: F401


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    monkeypatch.setenv("OVERNIGHT_STATE", str(directory))
    monkeypatch.delenv("OVERNIGHT_CYCLE", raising=False)
    return directory


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of the tests' own on two CPUs: its state directory knows of no head to join."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(tmp_path_factory.mktemp("ray-state")))
        patch.setenv("OVERNIGHT_RAY_NUM_CPUS", "2")
        with connect():
            yield


def document(text: str | None, path: str = "a.py", **columns: object) -> dict[str, object]:
    """A row as ingest would write it, with the given columns changed."""
    content = text or ""
    row = {
        "id": document_id(content),
        "text": text,
        "path": path,
        "package": "p",
        "version": "1",
        "licence": "MIT",
        "language": "python",
        "source": "directory",
        "bytes": len(content.encode()),
    }
    return row | columns


def write_raw(out: Path, rows: list[dict[str, object]]) -> Manifest:
    """An artifact like data/raw from rows that ingest itself may never write."""
    frame = pl.DataFrame(rows, schema=SCHEMA).sort("id", "path")
    config = IngestConfig(sources=(DirectorySource(path="x"),))
    with artifact.create(out, stage="ingest", config=config, inputs=[], code=Path(ingest.__file__)) as draft:
        writer = ShardWriter(draft.path, SCHEMA, config.shard_bytes)
        writer.write(frame)
        writer.close()
        draft.rows = dict(writer.rows)
    assert draft.manifest is not None
    return draft.manifest


def read_parts(directory: Path) -> pl.DataFrame:
    return pl.read_parquet(directory / "part-*.parquet")
