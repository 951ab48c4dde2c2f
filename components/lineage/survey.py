"""Say what stages depend on beside each other's artifacts: the first stage of the graph, which always runs.

Reads   params.yaml, dvc.yaml, the sources, this machine, the code
Writes  into .overnight, each file left alone while nothing changed: sources.json (what the sources hold now),
        initial.json (the checkpoint that is gone on from), hardware.json (this machine), laws.json ({} until
        `overnight plan --fit` puts a law there), code/<stage>.json (components.core.graph.reads)
`overnight cycle` does the same in its own process. A source that cannot be asked keeps what it said last.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from components.core.config import read_settings, read_yaml, section_of
from components.core.errors import ConfigError, OvernightError
from components.core.graph import reads
from components.core.graph.closure import ROOT
from components.core.graph.stages import GRAPH, Stage, read_stages
from components.core.private import folder
from components.data.config import IngestConfig
from components.data.sources import fingerprint
from components.tokens.foreign import adoption
from components.training.config import PretrainConfig
from components.training.planning import fitted, hardware

PARAMS = Path("params.yaml")
STATE = Path(".overnight")
SOURCES, HARDWARE, LAWS, INITIAL = (STATE / f"{name}.json" for name in ("sources", "hardware", "laws", "initial"))


def survey(sources: str, checkpoint: str) -> list[str]:
    """Write all of it; returns a line for every source that could not be asked.

    `sources` and `checkpoint` are the sections of params.yaml that name them. Raises ConfigError for a stage that does
    not depend on its code, DataError for a checkpoint that cannot be gone on from.
    """
    stages = read_stages()
    require_code(stages)
    hardware.write(HARDWARE)
    fitted.ensure(LAWS)
    tree = read_yaml(PARAMS)
    adoption.write_initial_path(section_of(tree, PARAMS, checkpoint, PretrainConfig).init_from, INITIAL)
    for each in stages:
        config = section_of(tree, PARAMS, each.name, each.config_type)
        reads.write(each.code, ROOT / each.module_path, config.named_files)
    return fingerprint.write(section_of(tree, PARAMS, sources, IngestConfig).sources, SOURCES)


def require_code(stages: Sequence[Stage]) -> None:
    """Raise ConfigError for a stage that DVC would not run again when its code changes."""
    for each in stages:
        if str(each.code) not in each.dependencies:
            raise ConfigError(
                f"{GRAPH}: stage {each.name} does not depend on {each.code}; add it to its deps, or a change of its "
                "code goes unseen"
            )


def run(arguments: Sequence[str]) -> list[str]:
    """The command, in this process."""
    parser = argparse.ArgumentParser(prog="survey", description=__doc__)
    parser.add_argument("--sources", required=True, help="section of params.yaml that lists the sources")
    parser.add_argument("--checkpoint", required=True, help="section of params.yaml that names a checkpoint")
    options = parser.parse_args(arguments)
    return survey(options.sources, options.checkpoint)


if __name__ == "__main__":
    try:
        folder(read_settings().state)
        for note in run(sys.argv[1:]):
            print(note, file=sys.stderr)
    except OvernightError as error:
        print(f"survey: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
