"""Turn a deadline into sizes, tokens and seconds for every stage.

Reads   the statistics of the token files (`--tokens`), this machine's description (`--hardware`), and the scaling law
        that was fitted on this corpus, or {} (`--laws`)
Writes  plan.json (components.training.config.Plan)
Deadline mode: pretrain gets what the deadline leaves after the time already spent and the reserves of later stages; a
few steps with the very engine give the speed of each size, and planning.choose says which one is trained.  Fixed mode:
everything is copied from params.yaml and nothing is measured.
Not covered: correction during the cycle (the flow's when a stage starts, pretrain's by its clock).
"""

import json
import time
from pathlib import Path
from typing import Any

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import Settings, read_settings
from components.core.errors import ConfigError, DataError
from components.core.events import Events
from components.core.step import main
from components.deadline import durations
from components.deadline.config import PRETRAIN
from components.deadline.division import Needs, deadline_seconds, elapsed_seconds, stage_seconds
from components.tokens.foreign.initial import INITIAL, Initial
from components.training.config import PLAN_FILE, Plan, PlanConfig
from components.training.engine.model.shape import Counts, Shape, shape_of
from components.training.parameters.size import Size
from components.training.planning import fitted
from components.training.planning.fitted import FittedLaw, domain_of
from components.training.planning.hardware_table import Machine, machine_here
from components.training.planning.outlook import Outlook, law_for, look


def shape_for(config: PlanConfig, size: Size, vocabulary_size: int, initial: Initial | None = None) -> Shape:
    """The shape of one size, or of the checkpoint that is gone on from. Raises ConfigError when heads and width do not
    fit, or when the checkpoint's positions cannot be stretched to plan.sequence_length."""
    if initial is not None:
        return continued(config, initial)
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
            tied=config.tied or config.architecture == "t5",
            experts=config.experts.number,
            experts_per_token=config.experts.per_token,
            balance=config.experts.balance,
        )
    except ValueError as error:
        raise ConfigError(f"plan: {error}; change plan.ladder, plan.fixed.size or plan.head_width") from error


def sizes_for(config: PlanConfig, initial: Initial | None) -> tuple[Size, ...]:
    """What there is to choose from: the ladder, or the checkpoint that is gone on from."""
    return config.ladder if initial is None else (Size(layers=initial.layers, width=initial.width),)


def continued(config: PlanConfig, initial: Initial) -> Shape:
    """The shape of a checkpoint with the rows that its tokenizer needs. Raises ConfigError for a context beyond it."""
    if config.sequence_length > initial.context and initial.positions != "rotary":
        raise ConfigError(
            f"plan.sequence_length is {config.sequence_length}, the checkpoint's context is {initial.context} and its "
            f"positions are {initial.positions}, which cannot be stretched; set it to at most {initial.context}"
        )
    rows = max(initial.rows, initial.vocabulary_size)
    added = (rows - initial.rows) * initial.width
    return Shape(
        architecture=initial.model_type,
        vocabulary_size=rows,
        context=max(initial.context, config.sequence_length),
        layers=initial.layers,
        width=initial.width,
        heads=initial.heads,
        key_value_heads=initial.key_value_heads,
        feed_forward=initial.feed_forward,
        rope_theta=initial.rope_theta,
        tied=initial.tied,
        counted=Counts(total=initial.total + added * (1 if initial.tied else 2), active=initial.active + added),
    )


def _as_configured(config: PlanConfig, size: Size, vocabulary_size: int, initial: Initial | None) -> dict[str, Any]:
    """What a plan takes over in either mode: the shape of a size, batches, workers, the checkpoint gone on from."""
    stretched = initial is not None and config.sequence_length > initial.context
    names = ("sequence_length", "batch_samples", "num_workers", "parallel", "activation_checkpointing", "device")
    return {
        "deadline_hours": config.hours,
        "shape": shape_for(config, size, vocabulary_size, initial),
        "initial": initial,
        "rope_scaling": config.rope_scaling if stretched else None,
        **{name: getattr(config, name) for name in names},
    }


def _between_validations(config: PlanConfig, steps: int) -> int:
    """Steps from one validation to the next, in a run of so many steps."""
    return max(1, steps // config.validations)


def plan_fixed(config: PlanConfig, vocabulary_size: int, initial: Initial | None = None) -> Plan:
    """Sizes and steps of params.yaml. A pure function: the same file on every machine."""
    needs = Needs(config)
    reserves = {name: needs.of(name).wanted for name in needs.reserves}
    return Plan(
        mode="fixed",
        **_as_configured(config, config.fixed.size, vocabulary_size, initial),
        stage_seconds={**reserves, PRETRAIN: max(1.0, deadline_seconds(config) - sum(reserves.values()))},
        micro_batch_samples=config.fixed.micro_batch_samples or config.micro_batch_samples,
        precision=config.fixed.precision,
        compiled=config.fixed.compiled,
        accelerators=config.fixed.accelerators,
        steps=config.fixed.steps,
        validate_every_steps=config.fixed.validate_every_steps or _between_validations(config, config.fixed.steps),
        decisions=config.fixed.decisions,
        skipped=config.fixed.skipped,
    )


def plan_deadline(
    config: PlanConfig,
    tokens: Manifest,
    machine: Machine,
    settings: Settings,
    initial: Initial | None = None,
    law: FittedLaw | None = None,
) -> Plan:
    """Measure, then choose. Raises ConfigError when the deadline cannot be met."""
    needs = Needs(config, durations.read(settings.state), settings.cycle)
    outlook = _outlook(config, tokens, machine, needs, elapsed_seconds(needs, settings, time.time()), initial, law)
    seconds = stage_seconds(needs, elapsed_seconds(needs, settings, time.time()))
    chosen = outlook.rows[outlook.chosen]
    return Plan(
        mode="deadline",
        **_as_configured(config, outlook.chosen, int(tokens.statistics["vocabulary_size"]), initial),
        stage_seconds=seconds,
        micro_batch_samples=chosen.micro_batch_samples or 1,
        precision=outlook.precision,
        compiled=outlook.compiled,
        accelerators=outlook.accelerators,
        training_seconds=seconds[PRETRAIN] - outlook.around_seconds,
        finish_seconds=needs.finish,
        expected_tokens=chosen.tokens,
        validate_every_steps=_between_validations(
            config, chosen.tokens // (config.batch_samples * config.sequence_length)
        ),
        alternatives=tuple(outlook.rows.values()),
        predicted=chosen.predicted,
        measured=outlook.measured,
        notes=(f"this machine takes {needs.pace:.2f} times the reserved seconds", *outlook.notes, outlook.reason),
    )


def _outlook(
    config: PlanConfig,
    tokens: Manifest,
    machine: Machine,
    needs: Needs,
    elapsed: float,
    initial: Initial | None,
    law: FittedLaw | None,
) -> Outlook:
    """The sizes that may be chosen, with what this machine makes of each in the time left."""
    vocabulary_size = int(tokens.statistics["vocabulary_size"])
    known, why = (None, None) if initial else law_for(config, law, domain_of(tokens, config))
    return look(
        config,
        machine,
        needs,
        elapsed_seconds=elapsed,
        sizes=sizes_for(config, initial),
        shape_of=lambda size: shape_for(config, size, vocabulary_size, initial),
        law=known,
        why_no_law=why,
        corpus_tokens=tokens.statistics.get("train_tokens"),
    )


def run(config: PlanConfig, *, tokens: Path, hardware: Path, laws: Path, out: Path) -> Manifest:
    """Write plan.json. Raises ConfigError for a deadline that is too short, DataError for an unreadable description."""
    manifest = artifact.read(tokens, verify=False)
    machine, law = _read_hardware(hardware), fitted.read(laws)
    vocabulary_size = int(manifest.statistics["vocabulary_size"])
    record = manifest.statistics.get(INITIAL)
    initial = None if record is None else Initial.model_validate(record)
    events = Events("plan")
    with artifact.create(out, stage="plan", config=config, inputs=[manifest], code=Path(__file__)) as draft:
        if config.mode == "fixed":
            plan = plan_fixed(config, vocabulary_size, initial)
        else:
            here = machine_here(machine, config.device, config.num_workers)
            plan = plan_deadline(config, manifest, here, read_settings(), initial, law)
        (draft.path / PLAN_FILE).write_text(plan.model_dump_json(indent=1) + "\n")
        draft.statistics = {"parameters": plan.shape.parameters, "mode": plan.mode}
        draft.run = {"hardware": machine}
        _tell(events, plan)
    assert draft.manifest is not None
    return draft.manifest


def _read_hardware(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); "
            f"`python -m components.training.planning.hardware --out {path}` writes it"
        ) from error
    return dict(description)


def _tell(events: Events, plan: Plan) -> None:
    shape = plan.shape
    events.note(
        f"{shape.parameters:,} parameters ({shape.architecture}, {shape.layers} layers of {shape.width}), "
        f"{', '.join([plan.precision, *(['compiled'] if plan.compiled else []), *plan.accelerators])}; "
        + (f"{plan.training_seconds:.0f} s of training" if plan.training_seconds else f"{plan.steps} steps")
    )
    for note in plan.notes:
        events.note(note)
    for each in plan.alternatives:
        events.note(
            f"{each.layers} x {each.width}: {each.parameters:,} parameters, {each.tokens_per_second:,.0f} tokens/s, "
            f"{each.tokens_per_parameter:.1f} tokens per parameter, {each.memory_bytes / 1e9:.1f} GB"
        )
    if plan.predicted:
        prediction = plan.predicted
        events.note(
            f"predicted: {prediction.value:.3f} {prediction.unit} ({prediction.low:.3f} to {prediction.high:.3f})"
        )


if __name__ == "__main__":
    main("plan", PlanConfig, run)
