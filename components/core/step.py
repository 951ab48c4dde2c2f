"""A stage as a command: `python -m components.data.clean --source data/checked --out data/clean`.

The arguments are the keyword paths of the stage's `run` (where), required unless `run` has a default for them; the
section of params.yaml is its config (what).
The command reports its start, end or failure as events, and turns errors into one line and an exit code.
"""

import argparse
import errno
import inspect
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from components.core.artifact import Manifest
from components.core.config import StepConfig, read_section
from components.core.errors import OvernightError
from components.core.events import Events
from components.core.graph import reads
from components.core.process import die_with_parent

Config = TypeVar("Config", bound=StepConfig)


def main(
    stage: str, config_type: type[Config], run: Callable[..., Manifest], arguments: Sequence[str] | None = None
) -> None:
    """Run one stage and exit: 0 done, else the error's code after one line on standard error.

    `run(config, *, name: Path, ...) -> Manifest` gets one path per keyword parameter, each from the option `--name`.
    """
    die_with_parent()
    try:
        sys.exit(_run(stage, config_type, run, arguments))
    except OvernightError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _run(stage: str, config_type: type[Config], run: Callable[..., Manifest], arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog=f"overnight {stage}", description=inspect.getdoc(sys.modules[run.__module__]))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="file with one section per stage")
    paths = {name: each for name, each in inspect.signature(run).parameters.items() if each.kind is each.KEYWORD_ONLY}
    for name, each in paths.items():
        required = each.default is each.empty
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=required, dest=name)
    options = parser.parse_args(arguments)
    events = Events(stage)
    events.write("started")
    started = time.monotonic()
    try:
        config = read_section(options.params, stage, config_type)
        for name, value in config.model_dump(mode="json").items():
            events.parameter(name, value)
        if (code := reads.CODE / f"{stage}.json").exists():  # DVC looks at it again when the stage has ended
            reads.write(code, Path(str(sys.modules[run.__module__].__file__)), config.named_files)
        manifest = run(config, **{name: getattr(options, name) for name in paths})
    except OvernightError as error:
        events.write("failed", error=str(error), exit_code=error.exit_code, transient=False)
        raise
    except OSError as error:
        full = error.errno == errno.ENOSPC
        line = "the disk is full" if full else f"{error.strerror or error} ({error.filename or 'no file named'})"
        line += "; nothing was replaced, free the cause and run it again"
        events.write("failed", error=line, exit_code=1, transient=not full)
        if not full:
            traceback.print_exc()
        print(f"{stage}: {line}", file=sys.stderr)
        return 1
    except BaseException as error:
        events.write("failed", error=f"{type(error).__name__}: {error}"[:2000], exit_code=1, transient=False)
        raise
    events.write(
        "finished",
        seconds=time.monotonic() - started,
        digest=manifest.digest,
        inputs=[each.model_dump() for each in manifest.inputs],
        statistics=manifest.statistics,
    )
    return 0
