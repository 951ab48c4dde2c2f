"""`overnight cycle --replay CYCLE_ID`: a recorded cycle again, in fixed mode, with every number that time decided.

Reads   reports/cycles/<id>.json, which each cycle writes: its parameters, what the clock decided, the commit, the
        machine and a digest of each artifact's files. It is one small file; another clone takes its path for the id.
Covers: sizes, steps and their decisions in pretraining, fine-tuning and alignment, chunks of preferences, on the CPU.
Not covered: sources that changed since, an external judge, programs that end close to their time limit, other cores
or threads than recorded: the digests tell. Manifests differ by design, a plan in fixed mode is another plan; files
are what is compared.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import digest_of
from components.core.errors import ArtifactError, ConfigError, one_line
from components.core.graph.stages import read_stages, writer
from dashboards.report.cycle_record import REPORTS, CycleRecord
from flows.running import params
from flows.running.params import Params

RECORDS = REPORTS / "cycles"


def find(which: str) -> CycleRecord:
    """The record of a cycle by its id, or by the path of its file. Raises ConfigError that names the nearest ids."""
    path = Path(which) if which.endswith(".json") else RECORDS / f"{which}.json"
    if not path.is_file():
        known = sorted(each.stem for each in RECORDS.glob("*.json"))
        near = difflib.get_close_matches(which, known, n=3, cutoff=0.0)
        hint = f"nearest: {', '.join(near)}" if near else "no cycle has ended in this workspace"
        raise ConfigError(f"--replay {which}: {path} does not exist; {hint}")
    try:
        record = CycleRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"--replay {which}: {path} is not a record: {one_line(error)}") from error
    if record.parameters is None or _pretraining() not in record.decided:
        raise ConfigError(f"--replay {which}: that cycle trained no model ({record.error or 'it ended before'})")
    return record


def decided(manifests: Mapping[str, Manifest]) -> dict[str, dict[str, Any]]:
    """What the clock decided in each stage, as its artifact states it."""
    return {
        name: manifest.statistics["decided"] for name, manifest in manifests.items() if "decided" in manifest.statistics
    }


def content(manifest: Manifest) -> str:
    """Digest of an artifact's files, whatever its parameters and inputs were."""
    return digest_of([[file.path, file.sha256] for file in manifest.files])


def outputs(stages: Mapping[str, Path]) -> dict[str, Manifest]:
    """The manifests that are there, by stage."""
    manifests = {}
    for name, path in stages.items():
        try:
            manifests[name] = artifact.read(path, verify=False)
        except ArtifactError:
            continue
    return manifests


def parameters(record: CycleRecord) -> Params:
    """The recorded parameters in fixed mode, with the recorded decisions in the place of those of a clock."""
    assert record.parameters is not None, "found with them"
    tree = json.loads(json.dumps(record.parameters))
    for stage, values in record.decided.items():
        if stage == _pretraining():
            plan = tree[_plan()]
            plan |= {"mode": "fixed", "fixed": plan["fixed"] | values}
        else:
            tree[stage] |= values
    return params.checked(tree, f"reports/cycles/{record.cycle_id}.json")


def _plan() -> str:
    return writer(read_stages(), "training_plan").name


def _pretraining() -> str:
    return writer(read_stages(), "base_model").name


def text(which: str) -> str:
    """The text that params.yaml has for a replay. Raises ConfigError with one line."""
    record = find(which)
    return params.written(parameters(record), f"the record of cycle {record.cycle_id}, replayed")


def compared(record: CycleRecord, contents: Mapping[str, str], machine: Mapping[str, Any], commit: str) -> str:
    """One line: which artifacts have the recorded bytes; where some do not, what else is not as recorded."""
    # The plan itself says "fixed" where it said "deadline"; every other artifact holds the same bytes.
    names = [name for name in record.contents if name != _plan() and name in contents]
    other = [name for name in names if contents[name] != record.contents[name]]
    if not other:
        return f"replay of {record.cycle_id}: all {len(names)} artifacts have the recorded bytes"
    reasons = [
        *([f"the commit is {commit[:12]}, was {record.commit[:12]}"] if commit != record.commit else []),
        *(["the machine is another one"] if dict(machine) != record.machine else []),
    ]
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return f"replay of {record.cycle_id}: {', '.join(other)} of {len(names)} artifacts differ from the record{why}"
