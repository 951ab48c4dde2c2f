"""The registry against a real MLflow on SQLite: a version exists only when its files can be served."""

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core import artifact
from components.core.config import Settings
from components.core.errors import ArtifactError, OvernightError
from components.release import registry

MakeModel = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own

TAGS = {"cycle": "c-1", "git_commit": "0" * 40}
METRICS = {"bits_per_byte": 1.5}


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_version_carries_files_and_lineage(settings: Settings, make_model: MakeModel) -> None:
    model = make_model("one")
    registered = registry.register(settings, model, tags=TAGS, metrics=METRICS)
    assert registered.version == 1
    assert registered.digest == artifact.read(model).digest
    assert registered.tags["cycle"] == "c-1" and registered.tags["stage"] == "pretrain"
    assert registry.find(settings, registered.digest) == registry.get(settings, 1) == registered
    shutil.rmtree(settings.state / "models")
    assert files(registry.resolve(settings, 1, registered.digest)) == files(model)


def test_the_same_digest_is_one_version(settings: Settings, make_model: MakeModel) -> None:
    first = registry.register(settings, make_model("one"), tags=TAGS, metrics=METRICS)
    second = registry.register(settings, make_model("two"), tags=TAGS, metrics={})
    assert (first.version, second.version) == (1, 2)
    assert registry.register(settings, make_model("one"), tags={"cycle": "c-2"}, metrics={}) == first


def test_a_present_version_needs_no_mlflow_and_a_spoilt_one_is_fetched_again(
    settings: Settings, make_model: MakeModel
) -> None:
    model = make_model("one")
    registered = registry.register(settings, model, tags=TAGS, metrics=METRICS)
    away = settings.model_copy(update={"mlflow_url": "http://127.0.0.1:9"})
    path = registry.resolve(away, 1, registered.digest)
    (path / "model.safetensors").write_bytes(b"spoilt")
    (path / "model_zz.safetensors").write_bytes(b"added")
    with pytest.raises(OvernightError, match=r"MLflow at http://127\.0\.0\.1:9"):
        registry.resolve(away, 1, registered.digest)
    assert files(registry.resolve(settings, 1, registered.digest)) == files(model)


def test_a_spoilt_model_is_not_registered(settings: Settings, make_model: MakeModel) -> None:
    model = make_model("one")
    (model / "tokenizer" / "extra.txt").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer/extra\.txt"):
        registry.register(settings, model, tags=TAGS, metrics=METRICS)


def test_a_store_that_alters_a_file_is_found_out(settings: Settings, make_model: MakeModel) -> None:
    registered = registry.register(settings, make_model("one"), tags=TAGS, metrics=METRICS)
    shutil.rmtree(settings.state / "models")
    (stored,) = (settings.state / "mlflow-artifacts").rglob("model.safetensors")
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"model\.safetensors: found sha256"):
        registry.resolve(settings, 1, registered.digest)
    stored.rename(stored.with_name("model_zz.safetensors"))
    with pytest.raises(ArtifactError, match=r"model_zz\.safetensors: a file that the manifest does not list"):
        registry.resolve(settings, 1, registered.digest)
    assert not (settings.state / "models" / registered.digest).exists()


def test_a_wrong_digest_is_named(settings: Settings, make_model: MakeModel) -> None:
    registered = registry.register(settings, make_model("one"), tags=TAGS, metrics=METRICS)
    with pytest.raises(ArtifactError, match=f"registered with digest {registered.digest}.*says {'f' * 64}"):
        registry.resolve(settings, 1, "f" * 64)


def test_an_unknown_version_says_which_there_are(settings: Settings, make_model: MakeModel) -> None:
    with pytest.raises(OvernightError, match="version 7 of overnight is not registered; registered: none"):
        registry.get(settings, 7)
    registry.register(settings, make_model("one"), tags=TAGS, metrics=METRICS)
    with pytest.raises(OvernightError, match="registered: 1"):
        registry.get(settings, 7)


def test_mlflow_down_fails_closed_and_soon(settings: Settings, make_model: MakeModel) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        away = settings.model_copy(update={"mlflow_url": f"http://127.0.0.1:{deaf.getsockname()[1]}"})
        started = time.monotonic()
        with pytest.raises(OvernightError, match="nothing was registered or promoted; start MLflow"):
            registry.register(away, make_model("one"), tags=TAGS, metrics=METRICS)
    assert time.monotonic() - started < 60, "its own retries would take four minutes"
