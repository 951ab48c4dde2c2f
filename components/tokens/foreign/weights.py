"""Which files hold the weights of a Hugging Face directory, and what is in them by their headers.

What `model.safetensors.index.json` names, or else `model.safetensors`: other files of weights in the same folder
(consolidated.safetensors, copies, adapters) are another form of the model or none of it, and are left.
Covers: safetensors in one file or in shards, links to files (a download's cache has them).
Not covered: pickles, which are never read; adapters, which are no whole model.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from components.core.errors import DataError
from components.core.text import read_json_object

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BESIDE = ("config.json", "generation_config.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
ADAPTER = "adapter_config.json"
CAUSAL = ("ForCausalLM", "LMHeadModel")  # how transformers' classes of decoders end


class Tensor(NamedTuple):
    """One tensor by its file's header; `dtype` as safetensors names it, such as BF16."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def why_adapter(directory: Path) -> str | None:
    """Why a folder with an adapter is refused: with its file there transformers loads another model, which it names."""
    if not (directory / ADAPTER).exists():
        return None
    return f"{directory}: found a LoRA adapter ({ADAPTER}), needed a whole model: merge it first and save that"


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the weights. Raises DataError when there are none, or the index names what is not there."""
    index = directory / INDEX
    if index.is_file():
        return [directory / name for name in sorted(set(_weight_map(index).values()))]
    single = directory / WEIGHTS
    if single.is_file():
        return [single]
    others = [path.name for each in ("*.safetensors", *PICKLES) for path in sorted(directory.glob(each))]
    held = f"found {others[0]}" if others else "found no weights"
    held += ", a pickle, which is never loaded" if others and not others[0].endswith(".safetensors") else ""
    raise DataError(f"{directory}: {held}; needed {WEIGHTS}, or {INDEX} and its shards, which save_pretrained writes")


def left_out(directory: Path) -> list[str]:
    """Names of other files of weights in the folder, which nothing reads."""
    names = {path.name for path in weight_files(directory)}
    return sorted(path.name for path in directory.glob("*.safetensors") if path.name not in names)


def tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor by name. Raises DataError for a damaged file, and when the index and the shards disagree."""
    headers: dict[str, Tensor] = {}
    for path in weight_files(directory):
        for name, each in _header(path).items():
            if name in headers:
                raise DataError(
                    f"{path}: {name} is in {headers[name].file.name} too; needed it once: these are two sets"
                )
            headers[name] = each
    index = directory / INDEX
    if index.is_file():
        named = _weight_map(index)
        wrong = sorted(
            name for name in {*named, *headers} if name not in headers or named.get(name) != headers[name].file.name
        )
        if wrong:
            name = wrong[0]
            held = f"{headers[name].file.name} holds it" if name in headers else "no shard holds it"
            says = f"is to be in {named[name]}" if name in named else "is not named"
            raise DataError(f"{index}: {name} {says} and {held}; needed an index of these shards: copy them again")
    return headers


@contextmanager
def linked(directory: Path) -> Iterator[Path]:
    """A folder of links to the configuration and the weights, and to nothing else, for a library that looks for files
    by itself: it finds no second set of weights, no adapter, no code. Raises DataError as `weight_files` does."""
    files = weight_files(directory)
    beside = [directory / name for name in BESIDE if (directory / name).is_file()]
    named = _weight_map(directory / INDEX) if (directory / INDEX).is_file() else {}
    with tempfile.TemporaryDirectory(prefix="overnight-weights-") as folder:
        for path in (*beside, *files):
            (Path(folder) / path.name).symlink_to(path.resolve())
        if named:  # as the library wants it: some indexes lack what it does not use
            (Path(folder) / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": named}))
        try:
            yield Path(folder)
        except Exception as error:  # whatever the library says, it says of the directory
            error.args = tuple(
                each.replace(folder, str(directory)) if isinstance(each, str) else each for each in error.args
            )
            raise


def _weight_map(index: Path) -> dict[str, str]:
    """Name of a tensor -> name of its file, each a file beside the index."""
    try:
        named: Any = read_json_object(index).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise ValueError("has no weight_map of names and files")
    except ValueError as error:
        raise DataError(f"{index}: cannot be read: {error}; copy the checkpoint again") from error
    for file in {*map(str, named.values())}:
        if PurePath(file).name != file or not file.endswith(".safetensors"):
            raise DataError(f"{index}: names {file!r}; needed names of safetensors files beside it")
        if not (index.parent / file).is_file():
            raise DataError(f"{index}: names {file}, which is not there; copy the checkpoint again, whole")
    return {str(name): str(file) for name, file in named.items()}


def _header(path: Path) -> dict[str, Tensor]:
    """What is in one file. The library checks that the header fits the file before anything is taken from it."""
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return {name: Tensor(path, each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not safetensors: {error}; copy the checkpoint again") from error
