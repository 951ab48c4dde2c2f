"""Artifacts as a chain: which were made from which, wherever their files lie.

An artifact is held by a directory of the workspace, or by DVC's cache, which keeps what earlier cycles wrote under the
digests of its files. Both are read alike, and nothing is checked out.
Not covered: caches on other machines (`dvc pull` brings their files here).
"""

import fnmatch
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.core.artifact import MANIFEST, Manifest, read
from components.core.errors import ArtifactError
from components.core.graph.stages import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An artifact that can be read: its manifest, and where each of its files lies, by its path in the artifact."""

    manifest: Manifest
    files: Mapping[str, Path]

    @property
    def digest(self) -> str:
        """The artifact's digest."""
        return self.manifest.digest

    def matching(self, pattern: str) -> list[tuple[str, Path]]:
        """Name and place of the files that match a glob, by name."""
        return sorted((name, path) for name, path in self.files.items() if fnmatch.fnmatchcase(name, pattern))

    def json(self, name: str) -> Any:
        """A file's JSON."""
        return json.loads(self.files[name].read_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What an artifact was made from, itself included, by stage; and the digests of what is not at hand, by stage."""

    held: Mapping[str, Held]
    missing: Mapping[str, str]


def in_directory(path: Path) -> Held | None:
    """The artifact in a directory, unverified; None when there is none.

    Raises ArtifactError for a manifest that cannot be read.
    """
    if not (path / MANIFEST).exists():
        return None
    manifest = read(path, verify=False)
    return Held(manifest=manifest, files={file.path: path / file.path for file in manifest.all_files})


def in_cache(objects: Path) -> dict[str, Held]:
    """Every artifact whose files DVC's cache holds, by digest. `objects` is the folder of its objects by digest."""
    artifacts = {}
    for listing in sorted(objects.glob("??/*.dir")):
        try:
            entries = json.loads(listing.read_bytes())
            files = {each["relpath"]: objects / each["md5"][:2] / each["md5"][2:] for each in entries}
            manifest = Manifest.model_validate_json(files[MANIFEST].read_bytes())
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            continue  # a directory that is no artifact of ours, or of another schema, or half collected
        if all(file.path in files and files[file.path].exists() for file in manifest.all_files):
            artifacts[manifest.digest] = Held(manifest=manifest, files=files)
    return artifacts


def chain(last: Held, known: Mapping[str, Held]) -> Chain:
    """What an artifact was made from, as far as the artifacts behind it are known by their digests."""
    held, missing = {last.manifest.stage: last}, {}
    todo = list(last.manifest.inputs)
    while todo:
        each = todo.pop()
        if each.digest in known:
            if each.stage not in held:
                held[each.stage] = known[each.digest]
                todo.extend(known[each.digest].manifest.inputs)
        else:
            missing[each.stage] = each.digest
    return Chain(held=held, missing={stage: digest for stage, digest in missing.items() if stage not in held})


def by_kind(by_stage: Chain, stages: Iterable[Stage]) -> Chain:
    """The same chain by the kind of each artifact; one whose stage dvc.yaml does not know keeps its stage's name."""
    kinds = {each.name: each.meta.writes or each.name for each in stages}
    return Chain(
        held={kinds.get(stage, stage): each for stage, each in by_stage.held.items()},
        missing={kinds.get(stage, stage): digest for stage, digest in by_stage.missing.items()},
    )


def by_digest(artifacts: Iterable[Held | None]) -> dict[str, Held]:
    """Artifacts by their digests; None is left out."""
    return {each.digest: each for each in artifacts if each is not None}


def require(held: Held, name: str) -> Path:
    """Where a file of an artifact lies. Raises ArtifactError when the artifact has none of that name."""
    if name not in held.files:
        raise ArtifactError(f"{held.manifest.stage} {held.digest[:12]}: has no {name}; run the stage again")
    return held.files[name]
