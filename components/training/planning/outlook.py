"""What a deadline gives on a machine: the rows to choose from, measured here or taken from the table.

The plan stage and `overnight plan` both look through this module: one planner, two entrances.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from components.deadline.config import PRETRAIN
from components.deadline.division import Needs, stage_seconds
from components.training.config import Alternative, PlanConfig, Precision
from components.training.engine.model.shape import Shape
from components.training.parameters.accelerators import Accelerator
from components.training.parameters.size import Size
from components.training.planning.accelerator_choice import Accelerated, Planned, accelerated
from components.training.planning.choose import choose, epochs_note, reach_note, row, rows_until_too_large
from components.training.planning.fitted import Domain, FittedLaw
from components.training.planning.hardware_table import Machine
from components.training.planning.memory_estimate import largest_micro_batch
from components.training.planning.throughput import compiles, fastest_precision, tokens_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Every size that was looked at, smallest first, and the one to train."""

    rows: dict[Size, Alternative]
    chosen: Size
    reason: str
    precision: Precision
    compiled: bool
    accelerators: tuple[Accelerator, ...]
    around_seconds: float
    stage_seconds: dict[str, float]
    measured: dict[str, float]
    notes: tuple[str, ...]


def law_for(config: PlanConfig, law: FittedLaw | None, domain: Domain) -> tuple[FittedLaw | None, str | None]:
    """The fitted law when it speaks of these tokens and this kind of model, else why it does not."""
    if law is None:
        return None, None
    different = law.domain.differences(domain)
    if different:
        return None, f"the fitted law is of another {', '.join(different)}: run `overnight plan --fit` again"
    return law, None


def look(
    config: PlanConfig,
    machine: Machine,
    needs: Needs,
    *,
    elapsed_seconds: float,
    sizes: Sequence[Size],
    shape_of: Callable[[Size], Shape],
    law: FittedLaw | None,
    why_no_law: str | None = None,
    corpus_tokens: int | None = None,
) -> Outlook:
    """Measure or compute each size, then choose. Raises ConfigError for a deadline or a memory that is too small."""
    seconds = stage_seconds(needs, elapsed_seconds)
    how = _conditions(config, machine, seconds[PRETRAIN] - needs.around_training, shape_of(sizes[0]))
    around = needs.around_training + (config.compile_seconds if how.compiled else 0.0)
    training_seconds = max(1.0, seconds[PRETRAIN] - around)

    rows = rows_until_too_large(
        config, sizes, lambda size: _row(config, machine, how, shape_of(size), training_seconds, law), law
    )
    chosen, reason = choose(rows, config, machine, why_no_law)
    faster = _accelerated(config, machine, how, shape_of(chosen), rows[chosen])
    return Outlook(
        rows=rows,
        chosen=chosen,
        reason=reason,
        precision=how.precision,
        compiled=how.compiled,
        accelerators=faster.names,
        around_seconds=around,
        stage_seconds=seconds,
        measured={**how.measured, **faster.measured, "pace": needs.pace},
        notes=(
            *how.notes,
            *faster.notes,
            *epochs_note(rows[chosen].tokens, corpus_tokens),
            *reach_note(rows[chosen], law),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conditions:
    """How a machine will train, and what that was decided by."""

    precision: Precision
    compiled: bool
    measured: dict[str, float]
    notes: tuple[str, ...]


def _conditions(config: PlanConfig, machine: Machine, training_seconds: float, smallest: Shape) -> _Conditions:
    """Measured on the machine that is here; compiled bfloat16 is assumed of one that is not."""
    if not machine.measured:
        share = machine.accelerator.utilisation
        note = f"{machine.name}: from the table, not measured; training at {share:.0%} of the peak is assumed"
        return _Conditions(precision="bfloat16", compiled=True, measured={}, notes=(note,))
    compiled, notes = compiles(config, training_seconds)
    precision, measured = fastest_precision(config, smallest, compiled)
    return _Conditions(precision=precision, compiled=compiled, measured=measured, notes=notes)


def _row(
    config: PlanConfig,
    machine: Machine,
    how: _Conditions,
    shape: Shape,
    training_seconds: float,
    law: FittedLaw | None,
) -> Alternative:
    """What the time gives one size."""
    samples = largest_micro_batch(shape, config, how.precision, machine.memory_bytes)
    if machine.measured and samples is not None:  # what does not fit must not be tried
        fitting = config.model_copy(update={"micro_batch_samples": samples})
        speed = tokens_per_second(fitting, shape, how.precision, how.compiled)
    else:
        speed = machine.achieved_flops / shape.training_flops_per_token(config.sequence_length)
    return row(
        config,
        shape,
        machine,
        precision=how.precision,
        tokens_per_second=speed,
        training_seconds=training_seconds,
        law=law,
    )


def _accelerated(
    config: PlanConfig, machine: Machine, how: _Conditions, shape: Shape, chosen: Alternative
) -> Accelerated:
    """What makes the chosen size faster. Its row is not corrected: the run's own clock is."""
    run = Planned(
        shape=shape,
        precision=how.precision,
        compiled=how.compiled,
        micro_batch_samples=chosen.micro_batch_samples or 1,
        training_seconds=chosen.training_seconds,
        here=machine.measured,
    )
    return accelerated(config, run)
