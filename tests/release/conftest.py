"""Settings with a state of their own, and small artifacts that stand for models where only their bytes matter."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core import artifact
from components.core.config import Settings, StepConfig
from components.release import registry

MakeModel = Callable[[str], Path]


class NoConfig(StepConfig):
    """No parameters."""


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them, which take MLflow four seconds to make."""
    state = tmp_path_factory.mktemp("empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SQLAlchemy's, from MLflow
        assert registry.find(Settings(state=state), "0" * 64) is None
    return state / "mlflow.db"


@pytest.fixture
def settings(tmp_path: Path, empty_registry: Path) -> Settings:
    state = tmp_path / "state"
    state.mkdir()
    shutil.copy(empty_registry, state / "mlflow.db")
    return Settings(state=state)


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Write an artifact with the files of a model; a different word gives a different digest."""

    def make(word: str) -> Path:
        out = tmp_path / "models" / word
        with artifact.create(out, stage="pretrain", config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
            (draft.path / "config.json").write_text('{"model_type": "llama"}')
            (draft.path / "model.safetensors").write_bytes(word.encode() * 1000)
            (draft.path / "tokenizer").mkdir()
            (draft.path / "tokenizer" / "extra.txt").write_text(word)
        return out

    return make
