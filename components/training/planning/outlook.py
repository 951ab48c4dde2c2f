"""What a deadline gives on a machine: the rows to choose from, measured here or taken from the table.

The plan stage and `overnight plan` both look through this module: one planner, two entrances.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from components.training.budget import Needs, divide
from components.training.config import Alternative, PlanConfig, Precision
from components.training.groups.size import Size
from components.training.planning.choose import choose, epochs_note, row, rows_until_too_large
from components.training.planning.fitted import Domain, FittedLaw
from components.training.planning.hardware_table import Machine
from components.training.planning.measure import compiles, fastest_precision, tokens_per_second
from components.training.shape import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Every size that was looked at, smallest first, and the one to train."""

    rows: dict[Size, Alternative]
    chosen: Size
    reason: str
    precision: Precision
    compiled: bool
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
    seconds = divide(needs, elapsed_seconds)
    around = needs.around_training
    notes: tuple[str, ...] = ()
    measured: dict[str, float] = {}
    precision: Precision = "bfloat16"
    compiled = True
    if machine.measured:
        compiled, notes = compiles(config, seconds["pretrain"] - around)
        precision, measured = fastest_precision(config, shape_of(sizes[0]), compiled)
    else:
        share = machine.accelerator.utilisation
        notes = (f"{machine.name}: from the table, not measured; training at {share:.0%} of the peak is assumed",)
    around += config.compile_seconds if compiled else 0.0
    training_seconds = max(1.0, seconds["pretrain"] - around)

    def row_of(size: Size) -> Alternative:
        shape = shape_of(size)
        if machine.measured:
            speed = tokens_per_second(config, shape, precision, compiled)
        else:
            speed = machine.achieved_flops / shape.training_flops_per_token(config.sequence_length)
        return row(
            config,
            shape,
            machine,
            precision=precision,
            tokens_per_second=speed,
            training_seconds=training_seconds,
            law=law,
        )

    rows = rows_until_too_large(config, sizes, row_of, law)
    chosen, reason = choose(rows, config, machine, why_no_law)
    return Outlook(
        rows=rows,
        chosen=chosen,
        reason=reason,
        precision=precision,
        compiled=compiled,
        around_seconds=around,
        stage_seconds=seconds,
        measured=measured | {"pace": needs.pace},
        notes=(*notes, *epochs_note(rows[chosen].tokens, corpus_tokens)),
    )
