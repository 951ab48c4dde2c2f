"""Artifacts travel to a store and back whole, or not at all; on a directory and on a real S3 server."""

import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from components.core import artifact
from components.core.artifact import MANIFEST, Manifest
from components.core.config import StepConfig
from components.core.errors import ArtifactError, ConfigError
from components.machine.object_store import S3Backend, Store, open_store

BUCKET = "overnight"


class Config(StepConfig):
    """Nothing to configure."""


def write_artifact(out: Path, files: dict[str, bytes]) -> Manifest:
    with artifact.create(out, stage="test", config=Config(), inputs=[], code=Path(artifact.__file__)) as draft:
        for name, content in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.path / name).write_bytes(content)
        draft.timed = {TIMED} & {*files}
    assert draft.manifest is not None
    return draft.manifest


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "directory":
        return open_store(str(tmp_path / "store"))
    url = request.getfixturevalue("s3_url")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
    return open_store(f"s3://{BUCKET}/{tmp_path.name}", endpoint_url=url)


def overwrite(store: Store, key: str, content: bytes, tmp_path: Path) -> None:
    """Put other bytes under a key, past the store."""
    aside = tmp_path / "other-bytes"
    aside.write_bytes(content)
    store.backend.put(aside, key)


TIMED = "seconds.json"
FILES = {"part-00000.parquet": b"a" * 1000, "deep/er.txt": b"text", "empty": b"", TIMED: b"1.5"}


def test_an_artifact_comes_back_with_the_same_digest(store: Store, tmp_path: Path) -> None:
    sent = write_artifact(tmp_path / "sent", FILES)
    store.upload(tmp_path / "sent", "data/clean")
    assert store.exists("data/clean")
    assert store.manifest("data/clean").digest == sent.digest
    store.download("data/clean", tmp_path / "got")
    assert artifact.read(tmp_path / "got").digest == sent.digest
    assert {name: (tmp_path / "got" / name).read_bytes() for name in FILES} == FILES
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_file_above_the_multipart_threshold_comes_back(store: Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # 10 MB: two parts
    (tmp_path / "large").write_bytes(content)
    digest = store.upload_file(tmp_path / "large", "large")
    store.download_file("large", tmp_path / "back", sha256=digest)
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize("content", [b"b" * 1000, b"a" * 999, b""])
def test_an_altered_object_is_named_and_nothing_appears(store: Store, tmp_path: Path, content: bytes) -> None:
    write_artifact(tmp_path / "sent", FILES)
    store.upload(tmp_path / "sent", "x")
    overwrite(store, "x/part-00000.parquet", content, tmp_path)
    with pytest.raises(ArtifactError, match=r"part-00000\.parquet: found sha256 .*, needed .*upload it again") as error:
        store.download("x", tmp_path / "got")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "got").exists()


def test_a_failed_download_leaves_the_older_artifact(store: Store, tmp_path: Path) -> None:
    old = write_artifact(tmp_path / "got", {"old": b"1"})
    write_artifact(tmp_path / "sent", FILES)
    store.upload(tmp_path / "sent", "x")
    overwrite(store, "x/deep/er.txt", b"other", tmp_path)
    with pytest.raises(ArtifactError):
        store.download("x", tmp_path / "got")
    assert artifact.read(tmp_path / "got").digest == old.digest


def test_a_download_takes_the_place_of_an_older_artifact(store: Store, tmp_path: Path) -> None:
    write_artifact(tmp_path / "got", {"old": b"1"})
    sent = write_artifact(tmp_path / "sent", FILES)
    store.upload(tmp_path / "sent", "x")
    store.download("x", tmp_path / "got")
    assert artifact.read(tmp_path / "got").digest == sent.digest
    assert not (tmp_path / "got" / "old").exists()


class CutError(Exception):
    """The process dies."""


def test_a_cut_upload_leaves_nothing_visible(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each file in turn, also over an older artifact: never a manifest over files that it does not describe."""
    write_artifact(tmp_path / "old", {"part-00000.parquet": b"old"})
    sent = write_artifact(tmp_path / "sent", FILES)
    put = store.backend.put
    for allowed in range(len(FILES) + 1):
        store.upload(tmp_path / "old", "x")
        done: list[str] = []

        def put_until_cut(path: Path, key: str, done: list[str] = done, allowed: int = allowed) -> None:
            if len(done) >= allowed:
                raise CutError
            done.append(key)
            put(path, key)

        monkeypatch.setattr(store.backend, "put", put_until_cut)
        with pytest.raises(CutError):
            store.upload(tmp_path / "sent", "x")
        monkeypatch.setattr(store.backend, "put", put)
        assert not store.exists("x")
        with pytest.raises(ArtifactError, match=f"no {MANIFEST}, so there is no artifact"):
            store.download("x", tmp_path / "got")
    store.upload(tmp_path / "sent", "x")
    assert store.download("x", tmp_path / "got").digest == sent.digest


def test_an_upload_of_the_same_artifact_sends_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artifact(tmp_path / "sent", FILES)
    store.upload(tmp_path / "sent", "x")

    def refuse(path: Path, key: str) -> None:
        raise AssertionError(f"sent {key} again")

    monkeypatch.setattr(store.backend, "put", refuse)
    store.upload(tmp_path / "sent", "x")


def test_a_damaged_artifact_is_not_sent(store: Store, tmp_path: Path) -> None:
    write_artifact(tmp_path / "sent", FILES)
    (tmp_path / "sent" / "deep" / "er.txt").write_bytes(b"TEXT")
    with pytest.raises(ArtifactError, match=r"er\.txt: found sha256"):
        store.upload(tmp_path / "sent", "x")
    assert not store.exists("x")


def test_a_manifest_that_points_outside_is_refused(store: Store, tmp_path: Path) -> None:
    manifest = write_artifact(tmp_path / "sent", FILES)
    evil = manifest.model_copy(update={"files": (manifest.files[0].model_copy(update={"path": "../../evil"}),)})
    overwrite(store, f"x/{MANIFEST}", evil.model_dump_json().encode(), tmp_path)
    with pytest.raises(ArtifactError, match="lies outside"):
        store.download("x", tmp_path / "got")


def test_a_missing_bucket_is_one_line(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(ArtifactError, match=r"^s3://absent/p/file: cannot be written: .*NoSuchBucket") as error:
        open_store("s3://absent/p", endpoint_url=s3_url).upload_file(tmp_path / "file", "file")
    assert "\n" not in str(error.value)


def test_an_unreachable_server_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ArtifactError, match=r"^s3://b/x/manifest\.json: cannot be looked up: .*127\.0\.0\.1"):
        open_store("s3://b", endpoint_url=url).exists("x")


@pytest.mark.parametrize(("url", "message"), [("gs://b/p", "gs:// is no store"), ("s3:///p", "names no bucket")])
def test_an_unknown_address_says_what_is_needed(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(url)


def test_a_prefix_is_kept_without_slashes() -> None:
    backend = open_store("s3://bucket//a/b/").backend
    assert isinstance(backend, S3Backend)
    assert backend.place("c") == "s3://bucket/a/b/c"
