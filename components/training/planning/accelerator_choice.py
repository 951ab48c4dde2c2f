"""Which accelerators a planned run uses: those that are named, or those that pay here and keep the loss.

torch is imported only when something is named or timed: on a CPU nothing is. The plan's notes say what was found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from components.core.errors import ConfigError
from components.training.config import PlanConfig, Precision
from components.training.engine.model.shape import Shape, stand_in
from components.training.parameters.accelerators import Accelerator, AcceleratorsConfig

if TYPE_CHECKING:
    from components.training.engine.devices.accelerator_trial import Comparison

ALL: tuple[Accelerator, ...] = ("liger", "graphs", "float8")  # in the order in which they are added


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerated:
    """What is used, the figures it was chosen by, and a line for each that was looked at."""

    names: tuple[Accelerator, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is known of the run by now. `here`: on this machine, where it can be tried."""

    shape: Shape
    precision: Precision
    compiled: bool
    micro_batch_samples: int
    training_seconds: float
    here: bool


def accelerated(config: PlanConfig, run: Planned) -> Accelerated:
    """Raises ConfigError for one that is named and cannot be used."""
    wanted = config.accelerators
    if wanted.use != "auto":
        if run.here and wanted.use and (refused := _objections(config, run, wanted.use)):
            raise ConfigError(f"plan.accelerators.use: {'; '.join(refused.values())}")
        return Accelerated(names=wanted.use)
    if config.device == "cpu" or not run.here:
        return Accelerated()
    if reason := _not_compared(wanted, run):
        return Accelerated(notes=(f"no accelerators: {reason}",))
    return _compared(config, run, _objections(config, run, ALL))


def _not_compared(wanted: AcceleratorsConfig, run: Planned) -> str | None:
    if run.training_seconds < wanted.from_seconds:
        return f"{run.training_seconds:.0f} s left for training, looked for from {wanted.from_seconds:.0f} on"
    if run.shape.kind != "decoder":
        return f"only decoders are compared, this is an {run.shape.kind}"
    return None


def _objections(config: PlanConfig, run: Planned, names: Sequence[Accelerator]) -> dict[Accelerator, str]:
    """Why some of them cannot be used."""
    from components.training.engine.devices import accelerators  # noqa: PLC0415 - torch takes seconds, see above

    reasons = {
        name: accelerators.objection(
            name,
            architecture=run.shape.architecture,
            device=config.device,
            precision=run.precision,
            compiled=run.compiled,
            workers=config.num_workers,
        )
        for name in names
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _compared(config: PlanConfig, run: Planned, refused: Mapping[Accelerator, str]) -> Accelerated:
    from components.training.engine.devices import accelerator_trial  # noqa: PLC0415 - as above

    wanted = config.accelerators
    setting = accelerator_trial.Setting(
        shape=run.shape if run.shape.counted is None else stand_in(run.shape),
        precision=run.precision,
        compiled=run.compiled,
        samples=run.micro_batch_samples,
        sequence_length=config.sequence_length,
        device=config.device,
    )
    picks, outcomes = accelerator_trial.pick(
        [name for name in ALL if name not in refused],
        lambda names: accelerator_trial.compare(setting, names),
        gain=wanted.gain,
        loss_tolerance=wanted.loss_tolerance,
        gradient_tolerance=wanted.gradient_tolerance,
    )
    lines = [_line(name, result, name in picks, wanted) for name, result in outcomes.items()]
    measured = {
        f"{name}_{what}": value
        for name, result in outcomes.items()
        if not isinstance(result, str)
        for what, value in asdict(result).items()
    }
    return Accelerated(names=picks, measured=measured, notes=(*refused.values(), *lines))


def _line(name: str, result: "Comparison | str", is_taken: bool, wanted: AcceleratorsConfig) -> str:
    """What one came to, for people."""
    verdict = f"{name}: {'taken' if is_taken else 'not taken'}"
    if isinstance(result, str):
        return f"{verdict}: {result}"
    needed, loss, gradient = 1 + wanted.gain, wanted.loss_tolerance, wanted.gradient_tolerance
    return (
        f"{verdict}: {result.speed:.3f} times none's speed (needed: {needed:.3f} times that of those before it), "
        f"loss within {result.loss:.5f} (at most {loss:.5f}), gradients within {result.gradient:.3f} (at most "
        f"{gradient:.3f})"
    )
