"""The model registry: versions of the registered model `overnight` in MLflow, each the files of one artifact.

A version exists only after its files came back from the store byte for byte, so that a version can always be served.
The files that came back stay in <state>/models/<digest>, where serving reads them; a version that is there is used
without asking MLflow. Importing this module costs two seconds of MLflow; nothing else in components/ pays them.
"""

import fcntl
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR, MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException

from components.core.artifact import Manifest, read
from components.core.config import Settings
from components.core.errors import ArtifactError, ConfigError, OvernightError, one_line
from components.core.private import folder
from components.serving.versions import MODEL

EXPERIMENT = "overnight-registry"
ARTIFACT_PATH = "model"
DATABASE = "mlflow.db"
PROBE_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """A version of the registered model. `tags` hold the lineage."""

    version: int
    digest: str
    run_id: str
    tags: Mapping[str, str]


def register(
    settings: Settings, model_dir: Path, *, tags: Mapping[str, str], metrics: Mapping[str, float]
) -> RegisteredVersion:
    """Register the artifact in `model_dir`; the version that has its digest already is returned as it is.

    Raises ArtifactError when the directory, or what the store gives back, is not what the manifest says, and
    OvernightError when MLflow does not answer. After an error no version exists.
    """
    manifest = read(model_dir)
    with _client(settings) as client:
        version = _find(client, manifest.digest)
        if version is not None:
            return version
        experiment = _experiment(client, settings)
        run = client.create_run(experiment, run_name=f"register {manifest.digest[:12]}")
        run_id: str = run.info.run_id
        try:
            client.log_batch(
                run_id,
                metrics=[Metric(name, value, run.info.start_time, 0) for name, value in metrics.items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )
            client.log_artifacts(run_id, str(model_dir), ARTIFACT_PATH)
            _download(client, settings, run_id, manifest.digest)
            return _create(client, f"{run.info.artifact_uri}/{ARTIFACT_PATH}", run_id, manifest, tags)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise


def find(settings: Settings, digest: str) -> RegisteredVersion | None:
    """The version with this digest, or None."""
    with _client(settings) as client:
        return _find(client, digest)


def get(settings: Settings, version: int) -> RegisteredVersion:
    """A version by number. Raises ConfigError that says which versions there are."""
    with _client(settings) as client:
        entities = client.search_model_versions(f"name = '{MODEL}'")
        for each in entities:
            if int(each.version) == version:
                return _registered(each)
        numbers = ", ".join(str(each.version) for each in reversed(entities)) or "none"
        raise ConfigError(f"version {version} of {MODEL} is not registered; registered: {numbers}")


def versions(settings: Settings) -> list[RegisteredVersion]:
    """Every version, by number; none where no registry was made yet, and none is made by asking."""
    if settings.mlflow_url is None and not (settings.state / DATABASE).exists():
        return []
    entries: list[RegisteredVersion] = []
    with _client(settings) as client:
        page = client.search_model_versions(f"name = '{MODEL}'")
        entries.extend(map(_registered, page))
        while page.token:
            page = client.search_model_versions(f"name = '{MODEL}'", page_token=page.token)
            entries.extend(map(_registered, page))
    return sorted(entries, key=lambda each: each.version)


def tag(settings: Settings, version: int, tags: Mapping[str, str]) -> None:
    """Set tags of a version; MLflow keeps the first 5,000 characters of a value."""
    with _client(settings) as client:
        for name, value in tags.items():
            client.set_model_version_tag(MODEL, str(version), name, value[:5000])


def resolve(settings: Settings, version: int, digest: str) -> Path:
    """The directory with a version's files, downloaded unless it is here, every file checked.

    Raises ArtifactError when the version, or what the store gives back, does not have this digest.
    """
    here = cached(settings, digest)
    if _is_whole(here, digest):
        return here
    registered = get(settings, version)
    if registered.digest != digest:
        raise ArtifactError(
            f"version {version} is registered with digest {registered.digest}, the environment file says {digest}; "
            "correct the file, or promote the version again"
        )
    with _client(settings) as client:
        return _download(client, settings, registered.run_id, digest)


def cached(settings: Settings, digest: str) -> Path:
    """Where the files of a version with this digest are, or will be once it is served."""
    return settings.state.resolve() / "models" / digest


def _is_whole(path: Path, digest: str) -> bool:
    """Whether the artifact with this digest is there, every file as its manifest says."""
    try:
        return read(path).digest == digest
    except ArtifactError:
        return False


def _download(client: MlflowClient, settings: Settings, run_id: str, digest: str) -> Path:
    """Fetch a run's model aside, check it, and put it in its place."""
    target = cached(settings, digest)
    aside = target.parent / f".{digest}.downloading-{uuid.uuid4().hex[:8]}"
    aside.mkdir(parents=True)
    try:
        fetched = Path(client.download_artifacts(run_id, ARTIFACT_PATH, str(aside)))
        actual = read(fetched).digest
        if actual != digest:
            raise ArtifactError(f"the registry gave back digest {actual} for {digest}; register the model again")
        if not _is_whole(target, digest):
            shutil.rmtree(target, ignore_errors=True)
            fetched.rename(target)
        return target
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _create(
    client: MlflowClient, source: str, run_id: str, manifest: Manifest, tags: Mapping[str, str]
) -> RegisteredVersion:
    """Make the version, the last step of registering."""
    try:
        client.create_registered_model(MODEL, description="Models made by Overnight")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    lineage = {
        "digest": manifest.digest,
        "stage": manifest.stage,
        "code_version": manifest.code_version,
        "lock_digest": manifest.lock_digest,
        **{f"input.{each.stage}": each.digest for each in manifest.inputs},
        **tags,
    }
    made = client.create_model_version(MODEL, source=source, run_id=run_id, tags=lineage)
    client.set_terminated(run_id)
    return _registered(made)


def _find(client: MlflowClient, digest: str) -> RegisteredVersion | None:
    entities = client.search_model_versions(f"name = '{MODEL}' and tags.digest = '{digest}'")
    return min((_registered(each) for each in entities), key=lambda each: each.version, default=None)


def _registered(entity: ModelVersion) -> RegisteredVersion:
    tags = dict(entity.tags)
    return RegisteredVersion(
        version=int(entity.version), digest=tags.get("digest", ""), run_id=str(entity.run_id), tags=tags
    )


def _experiment(client: MlflowClient, settings: Settings) -> str:
    """The experiment that holds the files."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifact_root(settings)))
    return str(experiment.experiment_id)


@contextmanager
def _client(settings: Settings) -> Iterator[MlflowClient]:
    """A client of the tracking server. Its own retries would hide an outage for four minutes, so it is probed first."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(3)
    url = tracking_uri(settings)
    mend = "nothing was registered or promoted; start MLflow (`overnight up`) and try again"
    try:
        if url.startswith("http"):
            httpx.get(f"{url.rstrip('/')}/health", timeout=PROBE_SECONDS).raise_for_status()
        with first_use(settings):
            client = MlflowClient(tracking_uri=url, registry_uri=url)
            client.get_experiment_by_name(EXPERIMENT)
        yield client
    except (MlflowException, httpx.HTTPError, OSError) as error:
        raise OvernightError(f"MLflow at {url}: {one_line(error)}; {mend}") from error


def tracking_uri(settings: Settings) -> str:
    """Where runs and models are recorded: the configured server, else a SQLite file, which a local server shares."""
    return settings.mlflow_url or database_uri(settings)


def database_uri(settings: Settings) -> str:
    """The SQLite file of this workspace."""
    return f"sqlite:///{settings.state.resolve() / DATABASE}"


def artifact_root(settings: Settings) -> str | None:
    """Where the files of runs lie beside a local database; a configured server decides that itself. Without it MLflow
    would make a folder wherever the first process happens to run."""
    return None if settings.mlflow_url else local_artifact_root(settings)


def local_artifact_root(settings: Settings) -> str:
    """The folder of runs' files beside the SQLite file."""
    return (settings.state.resolve() / "mlflow-artifacts").as_uri()


@contextmanager
def first_use(settings: Settings) -> Iterator[None]:
    """Hold a lock while MLflow may create its tables: two that do it at once break each other."""
    folder(settings.state)
    with (settings.state / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
