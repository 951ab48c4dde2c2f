"""Turn a deadline into sizes, tokens and seconds for every stage.

Reads   the statistics of the token files (`--tokens`) and this machine's description (`--hardware`)
Writes  plan.json (components.training.config.Plan)
Deadline mode: pretrain gets what the deadline leaves after the time already spent and the reserves of later stages; a
few steps with the very engine give the speed of each size; the largest size that still sees enough tokens per parameter
is chosen.  Fixed mode: everything is copied from params.yaml and nothing is measured.
Not covered: prices, memory, correction during the cycle (pretrain alone corrects itself, by its clock).
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import Settings, read_settings
from components.core.errors import ConfigError, DataError
from components.core.events import Events
from components.core.step import main
from components.training import durations
from components.training.budget import Needs, deadline_seconds, divide, elapsed_seconds
from components.training.config import Alternative, Plan, PlanConfig, Precision, Size
from components.training.laws import BESIROGLU, HOFFMANN
from components.training.shape import Shape, shape_of

# A shape is probed for at most this share of probe_seconds; the compiler's check takes the rest.
SHARE_PER_SIZE = 0.15


def shape_for(config: PlanConfig, size: Size, vocabulary_size: int) -> Shape:
    """The shape of one size. Raises ConfigError when heads and width do not fit."""
    try:
        return shape_of(
            architecture=config.architecture,
            vocabulary_size=vocabulary_size,
            context=config.sequence_length,
            layers=size.layers,
            width=size.width,
            head_width=config.head_width,
            queries_per_key_value=config.queries_per_key_value,
            rope_theta=config.rope_theta,
            tied=config.tied,
        )
    except ValueError as error:
        raise ConfigError(f"plan: {error}; change plan.ladder, plan.fixed.size or plan.head_width") from error


def choose(alternatives: Mapping[Size, Alternative], minimum_tokens_per_parameter: float) -> Size:
    """The largest size that sees enough tokens per parameter; the smallest one when none does."""
    enough = [size for size, each in alternatives.items() if each.tokens_per_parameter >= minimum_tokens_per_parameter]
    by_parameters = sorted(enough or alternatives, key=lambda size: alternatives[size].parameters)
    return by_parameters[-1] if enough else by_parameters[0]


def alternative(shape: Shape, tokens_per_second: float, training_seconds: float) -> Alternative:
    """What a size would see in the time, and what published laws would say of it."""
    tokens = int(tokens_per_second * training_seconds)
    return Alternative(
        layers=shape.layers,
        width=shape.width,
        parameters=shape.parameters,
        tokens_per_second=tokens_per_second,
        tokens=tokens,
        tokens_per_parameter=tokens / shape.parameters,
        hoffmann_loss=HOFFMANN.loss(shape.parameters, tokens),
        besiroglu_loss=BESIROGLU.loss(shape.parameters, tokens),
    )


def plan_fixed(config: PlanConfig, vocabulary_size: int) -> Plan:
    """Sizes and steps of params.yaml. A pure function: the same file on every machine."""
    needs = Needs(config)
    reserves = {name: needs.of(name).wanted for name in needs.reserves}
    return Plan(
        mode="fixed",
        deadline_hours=config.hours,
        stage_seconds={**reserves, "pretrain": max(1.0, deadline_seconds(config) - sum(reserves.values()))},
        shape=shape_for(config, config.fixed.size, vocabulary_size),
        sequence_length=config.sequence_length,
        batch_samples=config.batch_samples,
        micro_batch_samples=config.micro_batch_samples,
        num_workers=config.num_workers,
        device=config.device,
        precision=config.fixed.precision,
        compiled=config.fixed.compiled,
        steps=config.fixed.steps,
        decisions=config.fixed.decisions,
        skipped=config.fixed.skipped,
    )


def plan_deadline(config: PlanConfig, vocabulary_size: int, settings: Settings) -> Plan:
    """Measure, then choose. Raises ConfigError when the deadline cannot be met."""
    needs = Needs(config, durations.read(settings.state), settings.cycle)
    seconds = divide(needs, elapsed_seconds(needs, settings, time.time()))  # refuse before measuring
    around = needs.around_training
    compiled, notes = _compiles(config, seconds["pretrain"] - around)
    around += config.compile_seconds if compiled else 0.0
    precision, measured = _precision(config, shape_for(config, config.ladder[0], vocabulary_size), compiled)
    alternatives: dict[Size, Alternative] = {}
    for size in config.ladder:
        shape = shape_for(config, size, vocabulary_size)
        speed = _tokens_per_second(config, shape, precision, compiled)
        alternatives[size] = alternative(shape, speed, max(1.0, seconds["pretrain"] - around))
        if alternatives[size].tokens_per_parameter < config.minimum_tokens_per_parameter:
            break
    size = choose(alternatives, config.minimum_tokens_per_parameter)
    seconds = divide(needs, elapsed_seconds(needs, settings, time.time()))
    return Plan(
        mode="deadline",
        deadline_hours=config.hours,
        stage_seconds=seconds,
        shape=shape_for(config, size, vocabulary_size),
        sequence_length=config.sequence_length,
        batch_samples=config.batch_samples,
        micro_batch_samples=config.micro_batch_samples,
        num_workers=config.num_workers,
        device=config.device,
        precision=precision,
        compiled=compiled,
        training_seconds=seconds["pretrain"] - around,
        finish_seconds=needs.finish,
        expected_tokens=alternatives[size].tokens,
        alternatives=tuple(alternatives.values()),
        measured=measured | {"pace": needs.pace},
        notes=(f"this machine takes {needs.pace:.2f} times the reserved seconds", *notes),
    )


def _compiles(config: PlanConfig, training_seconds: float) -> tuple[bool, tuple[str, ...]]:
    left = training_seconds - config.compile_seconds
    if left < max(config.compile_from_seconds, config.minimum_training_seconds):
        return False, (f"eager: compilation would leave {left:.0f} s for training",)
    from components.training import probe  # noqa: PLC0415 - torch takes seconds, fixed mode needs none of it

    fault = probe.compiler_fault()
    return fault is None, (f"eager: no working compiler ({fault})",) if fault else ()


def _precision(config: PlanConfig, shape: Shape, compiled: bool) -> tuple[Precision, dict[str, float]]:
    """The faster precision, and the figures it was chosen by (per second; more is better)."""
    from components.training import probe  # noqa: PLC0415 - as above

    limit = config.probe_seconds * SHARE_PER_SIZE
    rows = config.micro_batch_samples * config.sequence_length
    figures: dict[Precision, float] = {}
    for precision in ("float32", "bfloat16"):
        if compiled:
            figures[precision] = probe.multiplication_flops(precision, shape, rows, config.device, limit / 2)
        else:
            figures[precision] = _tokens_per_second(config, shape, precision, compiled)
    unit = "multiplication_flops" if compiled else "tokens_per_second"
    return max(figures, key=lambda each: figures[each]), {f"{each}_{unit}": value for each, value in figures.items()}


def _tokens_per_second(config: PlanConfig, shape: Shape, precision: Precision, compiled: bool) -> float:
    """Over all workers; a compiled speed is the eager one times the configured ratio."""
    from components.training import probe  # noqa: PLC0415 - as above

    seconds = probe.step_seconds(
        shape,
        precision,
        samples=config.micro_batch_samples,
        sequence_length=config.sequence_length,
        device=config.device,
        limit_seconds=config.probe_seconds * SHARE_PER_SIZE,
    )
    tokens = config.micro_batch_samples * config.sequence_length
    # Workers on one machine's cores share them; each GPU is a machine of its own.
    workers = config.num_workers if config.device == "cuda" else 1
    return tokens / seconds * workers * (config.compiled_speedup if compiled else 1.0)


def run(config: PlanConfig, *, tokens: Path, hardware: Path, out: Path) -> Manifest:
    """Write plan.json. Raises ConfigError for a deadline that is too short, DataError for an unreadable description."""
    manifest = artifact.read(tokens, verify=False)
    machine = _read_hardware(hardware)
    vocabulary_size = int(manifest.statistics["vocabulary_size"])
    events = Events("plan")
    with artifact.create(out, stage="plan", config=config, inputs=[manifest], code=Path(__file__)) as draft:
        if config.mode == "fixed":
            plan = plan_fixed(config, vocabulary_size)
        else:
            plan = plan_deadline(config, vocabulary_size, read_settings())
        (draft.path / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n")
        draft.statistics = {"parameters": plan.shape.parameters, "mode": plan.mode}
        draft.run = {"hardware": machine}
        _tell(events, plan)
    assert draft.manifest is not None
    return draft.manifest


def _read_hardware(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); `python -m components.training.hardware --out {path}` writes it"
        ) from error
    return dict(found)


def _tell(events: Events, plan: Plan) -> None:
    shape = plan.shape
    events.note(
        f"{shape.parameters:,} parameters ({shape.architecture}, {shape.layers} layers of {shape.width}), "
        f"{plan.precision}{', compiled' if plan.compiled else ''}; "
        + (f"{plan.training_seconds:.0f} s of training" if plan.training_seconds else f"{plan.steps} steps")
    )
    for note in plan.notes:
        events.note(note)
    for each in plan.alternatives:
        events.note(
            f"{each.layers} x {each.width}: {each.parameters:,} parameters, {each.tokens_per_second:,.0f} tokens/s, "
            f"{each.tokens_per_parameter:.1f} tokens per parameter"
        )


if __name__ == "__main__":
    main("plan", PlanConfig, run)
