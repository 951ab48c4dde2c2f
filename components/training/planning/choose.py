"""Sizes side by side - tokens, memory, loss, cost - and which one to train. Standard library only.

At a deadline a size decides its tokens, so the choice is among a few rows. In this order:
1. what fits the memory, at some micro-batch;
2. with a law that holds for the run: the least predicted loss; and where serving counts, the cheapest to serve among
   those within `loss_tolerance` of it (training costs the same for all: the deadline's hours), after Sardana et al.
   2024 (arXiv:2401.00448), whose optimum without a deadline is told beside it;
3. without such a law: the largest size that sees plan.minimum_tokens_per_parameter.
"""

from collections.abc import Callable, Mapping, Sequence

from components.core.errors import ConfigError
from components.training.config import Alternative, PlanConfig, Precision, Prediction
from components.training.engine.model.shape import Shape
from components.training.parameters.size import Size
from components.training.planning.fitted import REACH, UNIT, FittedLaw
from components.training.planning.hardware_table import Machine
from components.training.planning.laws import (
    BESIROGLU,
    FLOPS_PER_PARAMETER_AND_SERVED_TOKEN,
    HOFFMANN,
    Law,
    cheapest_to_train_and_serve,
)
from components.training.planning.memory_estimate import largest_micro_batch, worker_bytes

SECONDS_PER_HOUR = 3600
EPOCHS_NEARLY_AS_GOOD = 4


def row(
    config: PlanConfig,
    shape: Shape,
    machine: Machine,
    *,
    precision: Precision,
    tokens_per_second: float,
    training_seconds: float,
    law: FittedLaw | None,
) -> Alternative:
    """One size: what the time gives it, what that needs, costs, and is predicted to reach."""
    tokens = int(tokens_per_second * training_seconds)
    micro_batch = largest_micro_batch(shape, config, precision, machine.memory_bytes)
    served = FLOPS_PER_PARAMETER_AND_SERVED_TOKEN * shape.matrix_parameters * config.economics.inference_tokens
    serving_flops = machine.accelerator.flops * machine.count * config.economics.serving_utilisation
    price = price_per_hour(config, machine) / SECONDS_PER_HOUR
    predicted = None
    if law is not None:
        interval = law.predict(shape.parameters, tokens)
        predicted = Prediction(low=interval.low, value=interval.value, high=interval.high, unit=UNIT)
    return Alternative(
        layers=shape.layers,
        width=shape.width,
        parameters=shape.parameters,
        tokens_per_second=tokens_per_second,
        tokens=tokens,
        tokens_per_parameter=tokens / shape.parameters,
        hoffmann_loss=HOFFMANN.loss(shape.parameters, tokens),
        besiroglu_loss=BESIROGLU.loss(shape.parameters, tokens),
        training_seconds=training_seconds,
        micro_batch_samples=micro_batch,
        memory_bytes=worker_bytes(shape, config, precision, micro_batch or 1),
        predicted=predicted,
        train_cost=price * training_seconds,
        serve_cost=price * served / serving_flops,
    )


def price_per_hour(config: PlanConfig, machine: Machine) -> float:
    """Of all of it: plan.economics' price for each accelerator, or for a machine without one; else the table's."""
    stated = config.economics.price_per_hour
    if stated is None:
        return machine.price_per_hour
    return stated * (machine.count if machine.accelerator.device == "cuda" else 1)


def rows_until_too_large(
    config: PlanConfig, sizes: Sequence[Size], row_of: Callable[[Size], Alternative], law: FittedLaw | None
) -> dict[Size, Alternative]:
    """Sizes from the smallest on, measured one by one: none that is larger than one that is already too large.

    Too large is, with a law, the second in a row that is predicted to be worse; without, fewer tokens than asked.
    """
    rows: dict[Size, Alternative] = {}
    for size in sizes:
        alternative = rows[size] = row_of(size)
        losses = [each.predicted.value for each in rows.values() if each.predicted]
        if law is not None and len(losses) > 2 and losses[-1] > losses[-2] > losses[-3]:
            break
        if law is None and alternative.tokens_per_parameter < config.minimum_tokens_per_parameter:
            break
    return rows


def choose(
    rows: Mapping[Size, Alternative], config: PlanConfig, machine: Machine, applies: str | None = None
) -> tuple[Size, str]:
    """The size to train, and why, in words. `applies`: why a fitted law is not used, where there is one.

    Raises ConfigError when no size fits the memory.
    """
    fitting = {size: each for size, each in rows.items() if each.micro_batch_samples is not None}
    if not fitting:
        least = min(each.memory_bytes for each in rows.values())
        if len(rows) == 1:
            raise ConfigError(
                f"plan: the model needs {least / 1e9:.1f} GB at one window, to be trained whole, and {machine.name} "
                f"has {machine.memory_bytes / 1e9:.1f} GB for a worker; take a smaller one, shorten "
                "plan.sequence_length, or share it among more workers by plan.parallel=sharded"
            )
        raise ConfigError(
            f"plan.ladder: the smallest size needs {least / 1e9:.1f} GB at one window and {machine.name} has "
            f"{machine.memory_bytes / 1e9:.1f} GB for a worker; add a smaller size or shorten plan.sequence_length"
        )
    left_out = len(rows) - len(fitting)
    why = [f"{left_out} sizes do not fit the memory"] if left_out else []
    if all(each.predicted for each in fitting.values()):
        size, reason = _by_loss(
            fitting,
            {size: each.predicted.value for size, each in fitting.items() if each.predicted},
            config,
            "fitted on this corpus",
        )
    elif config.economics.inference_tokens and _all_covered(fitting, BESIROGLU):
        losses = {size: each.besiroglu_loss for size, each in fitting.items()}
        size, reason = _by_loss(fitting, losses, config, "Besiroglu et al. 2024")
        reason += sardana_note(losses[size], config)
    else:
        size, reason = _by_tokens(fitting, config)
        if config.economics.inference_tokens:
            why.append("no law covers these runs, so plan.economics.inference_tokens did not count")
    if size == max(rows, key=lambda each: rows[each].parameters) and len(rows) > 1:
        why.append("the largest of plan.ladder: a larger one might be better still")
    return size, "; ".join([reason, *why, *([applies] if applies else [])])


def _all_covered(rows: Mapping[Size, Alternative], law: Law) -> bool:
    return all(law.covers(each.parameters, each.tokens) for each in rows.values())


def _by_loss(
    rows: Mapping[Size, Alternative], losses: Mapping[Size, float], config: PlanConfig, source: str
) -> tuple[Size, str]:
    best = min(rows, key=lambda size: losses[size])
    if not config.economics.inference_tokens:
        return best, f"the least loss by the law {source}"
    most = losses[best] * (1 + config.economics.loss_tolerance)
    near = [size for size in rows if losses[size] <= most]
    cheapest = min(near, key=lambda size: rows[size].serve_cost)
    return cheapest, (
        f"the cheapest to serve of {len(near)} within {config.economics.loss_tolerance:.1%} of the least loss by the "
        f"law {source}"
    )


def _by_tokens(rows: Mapping[Size, Alternative], config: PlanConfig) -> tuple[Size, str]:
    if len(rows) == 1:  # a checkpoint's, or a ladder of one
        return next(iter(rows)), "the only size"
    least = config.minimum_tokens_per_parameter
    enough = [size for size, each in rows.items() if each.tokens_per_parameter >= least]
    by_parameters = sorted(enough or rows, key=lambda size: rows[size].parameters)
    if enough:
        return by_parameters[-1], f"the largest that sees {least:g} tokens per parameter"
    return by_parameters[0], f"the smallest: none sees {least:g} tokens per parameter"


def sardana_note(loss: float, config: PlanConfig) -> str:
    """What would cost the least to train and serve at this loss if no deadline and no list of sizes held."""
    optimum = cheapest_to_train_and_serve(BESIROGLU, loss, config.economics.inference_tokens)
    return (
        f"; without a deadline {optimum.parameters / 1e6:,.0f}M parameters on {optimum.training_tokens / 1e9:,.0f}G "
        f"tokens would be the cheapest to train and serve at this loss, {optimum.flops:.2g} FLOPs (Sardana et al. 2024)"
    )


def epochs_note(tokens: float, corpus_tokens: int | None) -> tuple[str, ...]:
    """A line when the run reads its corpus many times: Muennighoff et al. 2023 (arXiv:2305.16264) found four passes
    nearly as good as new text, and little in more than 16. The laws count every token as new."""
    if not corpus_tokens or tokens <= EPOCHS_NEARLY_AS_GOOD * corpus_tokens:
        return ()
    return (
        f"the run reads its {corpus_tokens:,} tokens {tokens / corpus_tokens:.1f} times; from {EPOCHS_NEARLY_AS_GOOD} "
        "times on repeated text teaches less than the laws say: add documents",
    )


def reach_note(alternative: Alternative, law: FittedLaw | None) -> tuple[str, ...]:
    """A line when the planned run lies far beyond the runs that its law was fitted on."""
    if law is None or law.fitted.law.covers(alternative.parameters, alternative.tokens):
        return ()
    size, length = max(each.parameters for each in law.points), max(each.tokens for each in law.points)
    return (
        f"the law was fitted on up to {size:,} parameters and {length:,} tokens: more than {REACH:g} times beyond, it "
        "ranks sizes, and its interval is too narrow; give --fit more minutes",
    )
