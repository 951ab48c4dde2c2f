"""Artifacts in another place: one small interface over a directory and an S3 bucket.

    store = open_store("s3://bucket/prefix")          # or a path, or file:///path
    store.upload(Path("data/clean"), "data/clean")    # files first, manifest.json last
    store.download("data/clean", Path("data/clean"))  # every sha256 checked before the directory appears

An artifact without a manifest does not exist here either, so a cut upload leaves nothing visible. Credentials, region
and endpoint are boto3's: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on.
Covers: artifact directories and single files; multipart transfers above 8 MB.  Not covered: two writers of one name.
"""

import shutil
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from components.core.artifact import MANIFEST, Manifest, read, sha256_of
from components.core.errors import ArtifactError, ConfigError, one_line

_THREADS = 4
_CONNECT_SECONDS = 10
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})


class Backend(Protocol):
    """Where bytes lie. Keys are relative paths with forward slashes; errors are ArtifactErrors with the full place."""

    def place(self, key: str) -> str:
        """The key as a person would look for it: a path or an s3:// address."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object under the key."""
        ...

    def put(self, path: Path, key: str) -> None:
        """Store a file as a whole or not at all."""
        ...

    def get(self, key: str, path: Path) -> None:
        """Write an object to a file. Raises ArtifactError when there is none."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...


class LocalBackend:
    """A directory of this machine, or of a mounted file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, key: str) -> str:
        return str(self.root / key)

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def put(self, path: Path, key: str) -> None:
        target = self.root / key
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, aside)
            aside.replace(target)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise ArtifactError(
                f"{target}: cannot be written ({error.strerror}); free the cause, upload again"
            ) from error

    def get(self, key: str, path: Path) -> None:
        try:
            shutil.copyfile(self.root / key, path)
        except OSError as error:
            raise ArtifactError(f"{self.place(key)}: cannot be read ({error.strerror})") from error

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)


def s3_client(bucket: str, endpoint_url: str | None = None, *, connections: int = 10) -> Any:
    """A client for one bucket that tries a request four times. Raises ConfigError when none can be made.

    `connections` are kept open at once: as many as threads share the client.
    """
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        retries={"max_attempts": 4, "mode": "standard"},
        max_pool_connections=connections,
    )
    try:
        return boto3.client("s3", endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"s3://{bucket}: no client can be made: {one_line(error)}") from error


class S3Backend:
    """A bucket, below a prefix; an endpoint of one's own where it is not Amazon's."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None = None) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self._client = s3_client(bucket, endpoint_url)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def place(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._key(key)}"

    def _call(self, key: str, does: str, call: Callable[[], Any]) -> Any:
        """Run a request; whatever goes wrong becomes one line that names the object."""
        try:
            return call()
        except (ClientError, BotoCoreError, Boto3Error) as error:
            raise ArtifactError(f"{self.place(key)}: cannot be {does}: {one_line(error)}") from error

    def exists(self, key: str) -> bool:
        try:
            self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return False
            raise ArtifactError(f"{self.place(key)}: cannot be looked up: {one_line(error)}") from error
        except BotoCoreError as error:
            raise ArtifactError(f"{self.place(key)}: cannot be looked up: {one_line(error)}") from error
        return True

    def put(self, path: Path, key: str) -> None:
        self._call(key, "written", lambda: self._client.upload_file(str(path), self.bucket, self._key(key)))

    def get(self, key: str, path: Path) -> None:
        self._call(key, "read", lambda: self._client.download_file(self.bucket, self._key(key), str(path)))

    def delete(self, key: str) -> None:
        self._call(key, "removed", lambda: self._client.delete_object(Bucket=self.bucket, Key=self._key(key)))


class Store:
    """Artifacts and files under names, in a backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def exists(self, name: str) -> bool:
        """Whether an artifact is whole under this name."""
        return self.backend.exists(f"{name}/{MANIFEST}")

    def upload(self, source: Path, name: str) -> Manifest:
        """Store the artifact at `source` under `name`, after checking it. One of the same digest is left as it is.

        An older artifact under the name is made invisible first: its manifest goes before its files are replaced.
        """
        manifest = read(source)
        if self.exists(name):
            if self.manifest(name).digest == manifest.digest:
                return manifest
            self.backend.delete(f"{name}/{MANIFEST}")
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda file: self.backend.put(source / file.path, f"{name}/{file.path}"), manifest.all_files))
        self.backend.put(source / MANIFEST, f"{name}/{MANIFEST}")
        return manifest

    def manifest(self, name: str) -> Manifest:
        """The manifest of a stored artifact. Raises ArtifactError when there is none, or none that can be read."""
        with tempfile.TemporaryDirectory() as temporary:
            return self._fetch_manifest(name, Path(temporary))

    def _fetch_manifest(self, name: str, directory: Path) -> Manifest:
        if not self.exists(name):
            place = self.backend.place(name)
            raise ArtifactError(f"{place}: no {MANIFEST}, so there is no artifact; upload it, or correct the name")
        self.backend.get(f"{name}/{MANIFEST}", directory / MANIFEST)
        try:
            return read(directory, verify=False)
        except ArtifactError as error:
            raise ArtifactError(f"{self.backend.place(name)}: {error}") from error

    def download(self, name: str, out: Path) -> Manifest:
        """Bring an artifact to `out`, as a whole or not at all; the place of an older one is taken last.

        Raises ArtifactError that names the object whose bytes are not what the manifest says.
        """
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(_temporary(out.name))
        temporary.mkdir()
        try:
            manifest = self._fetch_manifest(name, temporary)

            def fetch(path: str, sha256: str) -> None:
                self.download_file(f"{name}/{path}", temporary / path, sha256=sha256)

            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(lambda file: fetch(file.path, file.sha256), manifest.all_files))
            if out.exists():
                old = out.with_name(_temporary(out.name))
                out.rename(old)
                temporary.rename(out)
                shutil.rmtree(old)
            else:
                temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return manifest

    def upload_file(self, path: Path, name: str) -> str:
        """Store one file and give its sha256, which a download needs to be sure of it."""
        digest = sha256_of(path)
        self.backend.put(path, name)
        return digest

    def download_file(self, name: str, out: Path, *, sha256: str) -> None:
        """Bring one file to `out`; it appears there only when its sha256 is the one wanted."""
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(_temporary(out.name))
        try:
            self.backend.get(name, aside)
            digest = sha256_of(aside)
            if digest != sha256:
                raise ArtifactError(
                    f"{self.backend.place(name)}: found sha256 {digest}, needed {sha256}; upload it again"
                )
            aside.replace(out)
        finally:
            aside.unlink(missing_ok=True)


def _temporary(name: str) -> str:
    return f".{name}.store-{uuid.uuid4().hex[:8]}"


def open_store(url: str, *, endpoint_url: str | None = None) -> Store:
    """The store at s3://bucket/prefix, file:///path or a path. Raises ConfigError for any other address."""
    parsed = urlparse(url)
    if parsed.scheme == "s3":
        if not parsed.netloc:
            raise ConfigError(f"{url} names no bucket; needed s3://bucket or s3://bucket/prefix")
        return Store(S3Backend(parsed.netloc, parsed.path.strip("/"), endpoint_url))
    if parsed.scheme not in ("", "file"):
        raise ConfigError(f"{url}: {parsed.scheme}:// is no store; needed s3://bucket/prefix or a path")
    return Store(LocalBackend(Path(parsed.path if parsed.scheme else url)))
