"""The ladder: small runs of several sizes and lengths on the user's corpus, by Ray Tune, and the law of their losses.

Reads   token files, tokenizer, params.yaml's plan and pretrain
Writes  <state>/laws/<key>/: design.json (what was decided from the measured speed) and one file for each finished run
The key is the digest of all that the runs depend on, so the same command goes on where it was cut off, and finished
runs are never made again. Covers: one trial at a time where a trial wants all cores, several side by side on a cluster.
Not covered: workers that share no file system; a length that was cut off starts from its size's first step.

This process does not import torch: the trials' workers do.
"""

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict
from ray import tune

from components.core import artifact
from components.core.artifact import write_file
from components.core.config import digest_of
from components.core.errors import DataError, OvernightError
from components.core.graph.closure import code_digest
from components.machine import cluster
from components.training.config import FixedRun, PlanConfig, Precision, PretrainConfig
from components.training.parameters.size import Size
from components.training.planning.fitted import Domain, FittedLaw, Point, domain_of
from components.training.planning.law_fit import fit
from components.training.run.worker_input import Work

# A trial that is slower than probed by more than this drops its longest lengths.
SPARE_TIME, SPARE_SECONDS = 1.5, 60.0
MAX_FAILURES = 1
LEAST_STEPS = 20
START_SECONDS = 15.0  # of a trial: process, imports, the start as a bigram model
# Tokens trained on in the time of validating one byte: a third as many tokens, each read twice (windows overlap by
# half), forward alone. Left out, ten minutes of small runs took fifteen.
TRAINED_PER_VALIDATED_BYTE = 1 / 3 * 2 / 3
# What pretrain says of watching, checkpoints and faults, which small runs have none of.
NOT_IN_A_RUN = {
    "report_every_steps",
    "validation_bytes",
    "checkpoint_seconds",
    "faults",
    "spikes",
}
PRECISION: dict[str, Precision] = {"cpu": "float32", "cuda": "bfloat16"}


class Trial(BaseModel):
    """One size and the lengths that it is trained to, in steps, rising."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: Work
    lengths: tuple[int, ...]
    seconds: float
    folder: Path

    def path(self, steps: int) -> Path:
        """Where the finished run of a length is kept."""
        shape = self.work.plan.shape
        return self.folder / f"{shape.layers}x{shape.width}-{steps}.json"

    @property
    def missing(self) -> list[int]:
        """Lengths that are not finished."""
        return [each for each in self.lengths if not self.path(each).exists()]

    def finished(self) -> list[Point]:
        """The finished runs."""
        return [
            Point.model_validate_json(self.path(each).read_bytes()) for each in self.lengths if self.path(each).exists()
        ]


def steps_of(shares: tuple[float, ...], decay_share: float, steps_in_time: float) -> tuple[int, ...]:
    """Steps of each length so that the shared stable part and every decay take `steps_in_time` steps together."""
    work = (1 - decay_share) * shares[-1] + decay_share * sum(shares)
    unit = max(steps_in_time / work, LEAST_STEPS / shares[0])
    return tuple(round(unit * share) for share in shares)


def design(
    plan: PlanConfig, pretrain: PretrainConfig, speeds: dict[Size, float], minutes: float
) -> list[tuple[Size, tuple[int, ...]]]:
    """Sizes and their lengths in steps. `speeds` in tokens per second; each size gets the same time, its start and the
    validation of every length included."""
    tokens_per_step = plan.batch_samples * plan.sequence_length
    seconds = max(0.0, 60 * minutes / len(speeds) - START_SECONDS)
    validating = len(plan.fit.lengths) * plan.fit.validation_bytes * TRAINED_PER_VALIDATED_BYTE
    return [
        (size, steps_of(plan.fit.lengths, pretrain.decay_share, (seconds * speed - validating) / tokens_per_step))
        for size, speed in speeds.items()
    ]


def train_trial(config: dict[str, str]) -> None:
    """What Ray Tune runs: the missing lengths of one size, each kept in a file as soon as it is measured."""
    from components.training.planning.branches import train_lengths  # noqa: PLC0415 - torch: in the workers alone

    trial = Trial.model_validate_json(config["trial"])
    plan = trial.work.plan

    def keep(steps: int, loss: float) -> None:
        point = Point(
            layers=plan.shape.layers,
            width=plan.shape.width,
            parameters=plan.shape.parameters,
            steps=steps,
            tokens=steps * plan.batch_samples * plan.sequence_length,
            loss=loss,
        )
        write_file(trial.path(steps), point.model_dump_json().encode())
        tune.report({**point.model_dump(), "note": None})

    missing = set(trial.missing)
    train_lengths(
        trial.work,
        {each: each in missing for each in trial.lengths},
        plan.device,
        until=time.monotonic() + SPARE_SECONDS + SPARE_TIME * trial.seconds,
        keep=keep,
        note=lambda text: tune.report({"note": text}),
    )


class Progress(tune.Callback):  # type: ignore[misc]  # ray has no types
    """Progress in words, as runs end."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """One run, or one note."""
        if result.get("note"):
            self.tell(result["note"])
        elif "loss" in result:
            self.tell(
                f"{result['layers']} x {result['width']}, {result['parameters']:,} parameters, "
                f"{result['tokens']:,} tokens: {result['loss']:.4f} bits per byte"
            )


def run_trials(trials: list[Trial], cpus: float, gpus: float, tell: Callable[[str], None]) -> None:
    """Make every missing run. Raises OvernightError with the first trial's own last line when one fails."""
    wanted = [each for each in trials if each.missing]
    if not wanted:
        return
    tuner = tune.Tuner(
        tune.with_resources(train_trial, {"cpu": cpus} | ({"gpu": gpus} if gpus else {})),
        param_space={"trial": tune.grid_search([each.model_dump_json() for each in wanted])},
        run_config=tune.RunConfig(
            # Tune would restore a run of the same name and place; ours are restored by their files.
            name=uuid.uuid4().hex,
            storage_path=str(wanted[0].folder / "ray"),
            verbose=0,
            callbacks=[Progress(tell)],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    results = tuner.fit()
    for error in results.errors:
        last = str(error).strip().splitlines()[-1]
        raise OvernightError(f"a run of the ladder failed {MAX_FAILURES + 1} times: {last}; finished runs are kept")


def measure_speeds(content: str, vocabulary_size: int, threads: int) -> list[float]:
    """Tokens per second of each size of the ladder, on one worker: a Ray task. `content`: a PlanConfig in JSON."""
    import torch  # noqa: PLC0415 - in the worker alone

    from components.training.plan import shape_for  # noqa: PLC0415 - as above
    from components.training.planning.throughput import tokens_per_second  # noqa: PLC0415 - as above

    torch.set_num_threads(threads)
    plan = PlanConfig.model_validate_json(content)
    shapes = [shape_for(plan, each, vocabulary_size) for each in plan.fit.sizes]
    return [tokens_per_second(plan, each, PRECISION[plan.device], compiled=False) for each in shapes]


def fit_corpus(
    plan: PlanConfig,
    pretrain: PretrainConfig,
    *,
    tokens: Path,
    tokenizer: Path,
    state: Path,
    minutes: float,
    tell: Callable[[str], None],
) -> FittedLaw:
    """Run what is missing of the ladder and fit the law. Raises DataError when too few runs came to their end."""
    manifest = artifact.read(tokens)
    domain = domain_of(manifest, plan)
    alone = plan.model_copy(update={"num_workers": 1})
    config = pretrain.model_copy(update={"final_validation_bytes": plan.fit.validation_bytes})
    folder = (state / "laws" / _key(manifest.digest, domain, alone, config, minutes)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with cluster.connect():
        cpus, gpus = shares_of(ray.cluster_resources(), len(plan.fit.sizes), plan.device)
        designed = _designed(folder, alone, config, domain.vocabulary_size, minutes, cpus, gpus, tell)
        trials = [
            Trial(
                work=_work(alone, config, size, lengths[-1], domain.vocabulary_size, tokens, tokenizer, folder, cpus),
                lengths=lengths,
                seconds=60 * minutes / len(designed),
                folder=folder,
            )
            for size, lengths in designed
        ]
        finished = sum(len(each.finished()) for each in trials)
        tell(f"{finished} of {sum(len(each.lengths) for each in trials)} runs are there; {folder}")
        run_trials(trials, cpus, gpus, tell)
    points = [point for each in trials for point in each.finished()]
    try:
        fitted = fit([each.run for each in points], source="fitted on this corpus", draws=plan.fit.draws)
    except ValueError as error:
        raise DataError(f"{folder}: {error}") from error
    return FittedLaw.of(fitted, points, domain, plan.fit.confidence)


def _key(tokens: str, domain: Domain, plan: PlanConfig, pretrain: PretrainConfig, minutes: float) -> str:
    """Digest of all that the runs depend on: corpus, recipe, ladder, time, and the code that trains."""
    recipe = pretrain.model_dump(mode="json", exclude=NOT_IN_A_RUN)
    ladder = plan.fit.model_dump(mode="json", exclude={"draws", "confidence"})
    code = code_digest(Path(__file__).with_name("branches.py"))
    return digest_of([tokens, domain.model_dump(), recipe, ladder, plan.device, minutes, code])[:16]


def shares_of(resources: dict[str, float], num_trials: int, device: str) -> tuple[int, float]:
    """(cores, GPUs) of one trial: all of a small machine, so that one runs at a time; a share of a larger one."""
    cores, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0.0)
    share = cores if cores < 2 * num_trials else cores // num_trials
    return max(1, share), min(1.0, gpus / num_trials) if device == "cuda" else 0.0


def _designed(
    folder: Path,
    plan: PlanConfig,
    pretrain: PretrainConfig,
    vocabulary_size: int,
    minutes: float,
    cpus: int,
    gpus: float,
    tell: Callable[[str], None],
) -> list[tuple[Size, tuple[int, ...]]]:
    """Sizes and lengths, decided by a measurement on the first attempt and written down for the next ones."""
    path = folder / "design.json"
    if not path.exists():
        measure = ray.remote(num_cpus=cpus, num_gpus=gpus)(measure_speeds)
        speeds = ray.get(measure.remote(plan.model_dump_json(), vocabulary_size, cpus))
        by_size = dict(zip(plan.fit.sizes, speeds, strict=True))
        for size, speed in by_size.items():
            tell(f"{size.layers} x {size.width}: {speed:,.0f} tokens/s")
        rows = [
            {"layers": size.layers, "width": size.width, "steps": steps}
            for size, steps in design(plan, pretrain, by_size, minutes)
        ]
        write_file(path, (json.dumps(rows, indent=1) + "\n").encode())
    return [
        (Size(layers=each["layers"], width=each["width"]), tuple(each["steps"]))
        for each in json.loads(path.read_bytes())
    ]


def _work(
    plan: PlanConfig,
    pretrain: PretrainConfig,
    size: Size,
    steps: int,
    vocabulary_size: int,
    tokens: Path,
    tokenizer: Path,
    folder: Path,
    threads: int,
) -> Work:
    """The longest run of a size as pretrain would be handed it."""
    from components.training.plan import plan_fixed  # noqa: PLC0415 - the plan stage reads laws, never makes them

    fixed = FixedRun(size=size, steps=steps, precision=PRECISION[plan.device], compiled=False)
    return Work(
        config=pretrain,
        plan=plan_fixed(plan.model_copy(update={"fixed": fixed}), vocabulary_size),
        tokens=tokens.resolve(),
        tokenizer=tokenizer.resolve(),
        run=folder,
        training_ends_at=None,
        threads=threads,
    )
