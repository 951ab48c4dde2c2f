"""What a stage reads beside artifacts and parameters: its code, and files that its parameters name.

Writes  .overnight/code/<stage>.json: sha256 of each file by its path. dvc.yaml lists it among the stage's deps, so DVC
        runs the stage again when one of them changes, and only then. It is left alone while nothing changed.
The survey writes all of them before the first stage; each stage writes its own again as it starts, so that dvc.lock
keeps the code that really ran, also when it changed in between.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from components.core.artifact import sha256_of, write_file
from components.core.graph.closure import code_of

CODE = Path(".overnight/code")
ABSENT = "absent"


def reads(module: Path, named: Sequence[str] = ()) -> dict[str, str]:
    """sha256 of each file that a module runs and of those that parameters name, by path, sorted."""
    files = {each: sha256_of(Path(each)) if Path(each).is_file() else ABSENT for each in named}
    return dict(sorted((code_of(module) | files).items()))


def write(out: Path, module: Path, named: Sequence[str] = ()) -> None:
    """Say in a file what a stage reads."""
    content = (json.dumps(reads(module, named), indent=1) + "\n").encode()
    if not out.exists() or out.read_bytes() != content:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, content)
