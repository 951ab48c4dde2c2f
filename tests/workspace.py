"""A checkout of its own to run whole commands in, as a user would: real DVC, Prefect, Ray, MLflow, Git and HTTP."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from components.core.graph.closure import ROOT
from components.machine.guard import USER
from components.machine.services import free_port

HOST = "127.0.0.1"
# A cycle of a minute or two: every stage real, none of them long, and a gate that a barely trained model passes.
TINY = (
    "ingest.sources=[{kind: python-environment}, {kind: canaries, copies: 3}]",
    "ingest.max_bytes=3000000",
    "check_clean.min_documents=10",
    "tokenize.validation_fraction=0.1",
    "plan.mode=fixed",
    "vocabulary.vocabulary_size=1024",
    "plan.fixed.steps=40",
    "plan.validations=2",
    "plan.fixed.size.layers=2",
    "plan.fixed.size.width=64",
    "pretrain.bigram_steps=10",
    "pretrain.report_every_steps=10",
    "pretrain.final_validation_bytes=60000",
    "sft.max_steps=4",
    "sft.max_too_long=0.3",
    "instructions.curriculum.tuning=200",
    "instructions.curriculum.heldout=12",
    "instructions.curriculum.pairs=12",
    "instructions.corpus.heldout=16",
    "instructions.corpus.functions=200",
    "evaluate.answers.items=8",
    "preferences.max_prompts=24",
    "preferences.max_new_tokens=24",
    "preferences.max_prompt_tokens=220",
    "align.max_steps=4",
    "align.min_pairs=4",
    "evaluate.likelihood.max_bytes=60000",
    "evaluate.completion.functions=20",
    "evaluate.completion.next_lines=20",
    "evaluate.completion.infilled_lines=20",
    "evaluate.completion.infilled_spans=5",
    "evaluate.completion.blocks=5",
    "evaluate.latency.rounds=2",
    "evaluate.safety.max_prompts=20",
    "evaluate.safety.max_look_alikes=20",
    "evaluate.safety.attacks=[plain]",
    "evaluate.safety.max_new_tokens=8",
    "evaluate.safety.mutants=0",
    "evaluate.safety.windows=4",
    "evaluate.safety.repeated_windows=4",
    "evaluate.functional.num_samples=2",
    "evaluate.functional.k=[1, 2]",
    "release.max_bits_per_byte_of_xz=10.0",
    "release.min_parse_share=0.0",
    "release.criteria.min_items=2",
)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A checkout with ports of its own."""

    root: Path
    variables: dict[str, str]

    def overnight(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this checkout to its end."""
        return subprocess.run(
            [sys.executable, "-m", "flows.commands.cli", *arguments],
            cwd=self.root,
            env=self.variables | more,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def port(self, name: str) -> int:
        """One of its ports: gateway, prefect, mlflow."""
        return int(self.variables[f"OVERNIGHT_{name.upper()}_PORT"])

    @property
    def credentials(self) -> tuple[str, str]:
        """User and password of Prefect and MLflow."""
        return USER, (self.root / ".overnight" / "keys" / "services").read_text()

    def url(self, name: str) -> str:
        """Where one of its services answers."""
        return f"http://{HOST}:{self.port(name)}"


def make(root: Path) -> Workspace:
    """Clone this repository, with what is not committed yet, into `root`."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    for name in listed.stdout.decode().split("\0"):
        source, target = ROOT / name, root / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    (root / "dvc.lock").unlink(missing_ok=True)
    ports = {f"OVERNIGHT_{name}_PORT": str(free_port(HOST)) for name in ("GATEWAY", "PREFECT", "MLFLOW", "METRICS")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OVERNIGHT_", "PREFECT_"))}
    inherited.pop("RAY_ADDRESS", None)
    return Workspace(root, inherited | ports)


def overrides(*assignments: str) -> list[str]:
    """The command line's --set for each assignment."""
    return [word for each in assignments for word in ("--set", each)]
