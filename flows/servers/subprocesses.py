"""Other people's command lines, run to their end."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.core.config import environment
from components.core.errors import OvernightError


def run_tool(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Standard output of a program. Raises OvernightError with the end of what it said when it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**environment(), **variables}
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        name = Path(command[0]).name
        raise OvernightError(
            f"{name} {' '.join(command[1:3])} exited with {done.returncode}: {said[-1] if said else ''}"
        )
    return done.stdout
