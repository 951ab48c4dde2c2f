"""Open a model with the engine of a name, importing that engine's libraries alone."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from components.core.errors import ConfigError
from components.inference.ctranslate2_model import read_model_config, uncovered
from components.inference.engine import Engine

if TYPE_CHECKING:
    # Never imported here, yet part of what this module runs: the digest of a stage's code follows these lines.
    from components.inference.ctranslate2_engine import CTranslate2Engine
    from components.inference.transformers_engine import TransformersEngine

    _Classes = CTranslate2Engine | TransformersEngine

# An engine's place here is all that opening it takes; mypy asks for the class above.
CLASSES: dict[str, tuple[str, str]] = {
    "ctranslate2": ("components.inference.ctranslate2_engine", "CTranslate2Engine"),
    "transformers": ("components.inference.transformers_engine", "TransformersEngine"),
}


def open_engine(
    model_dir: Path,
    name: str | None = None,
    *,
    compute_type: str = "float32",
    device: str = "cpu",
    num_threads: int | None = None,
    cache: Path | None = None,
) -> Engine:
    """A loaded model, with the engine of a name; None: ctranslate2 where it covers the model, else transformers.

    `num_threads` None leaves the choice to the engine; `cache` is where ctranslate2 keeps what it converts. Raises
    ConfigError for an unknown engine, device or compute type, ArtifactError for a model that cannot be read or that the
    engine does not cover.
    """
    name = engine_for(model_dir) if name is None else name
    if name not in CLASSES:
        raise ConfigError(f"engine is {name!r}; allowed: {', '.join(CLASSES)}")
    module, class_name = CLASSES[name]
    engine_type: type[_Classes] = getattr(import_module(module), class_name)
    options: dict[str, Any] = {"compute_type": compute_type, "device": device, "num_threads": num_threads}
    if name == "ctranslate2":
        options["cache"] = cache
    return cast(Engine, engine_type(model_dir, **options))


def engine_for(model_dir: Path) -> str:
    """The fastest engine that covers a model. Raises ArtifactError for a directory that holds no decoder."""
    return "transformers" if uncovered(read_model_config(model_dir)) else "ctranslate2"
