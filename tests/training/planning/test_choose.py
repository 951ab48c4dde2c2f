"""Which size is trained, and why: memory, loss, tokens, serving, prices."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import ConfigError
from components.deadline.division import Needs
from components.training.config import PlanConfig
from components.training.engine.model.shape import Shape
from components.training.parameters.fit import EconomicsConfig
from components.training.parameters.size import Size
from components.training.plan import shape_for
from components.training.planning import outlook as outlook_module
from components.training.planning.choose import epochs_note, reach_note
from components.training.planning.fitted import Domain, FittedLaw, Point
from components.training.planning.hardware_table import Machine, machine_here, machine_of
from components.training.planning.law_fit import Run, fit
from components.training.planning.laws import Law
from components.training.planning.memory_estimate import largest_micro_batch, worker_bytes
from components.training.planning.outlook import Outlook, law_for, look

DOMAIN = Domain(tokenizer_digest="t", vocabulary_size=4096, architecture="qwen3", shape_digest="s")
DAY = {"batch_samples": 512, "micro_batch_samples": 16, "sequence_length": 2048, "head_width": 128, "device": "cuda"}
LADDER = tuple(Size(layers=layers, width=width) for layers, width in ((16, 1024), (20, 1536), (24, 2048), (32, 2560)))


def law_of(irreducible: float, a: float, alpha: float, b: float, beta: float) -> FittedLaw:
    planted = Law(source="planted", irreducible=irreducible, a=a, alpha=alpha, b=b, beta=beta)
    points = [
        Point(layers=2, width=64, parameters=size, steps=1, tokens=tokens, loss=planted.loss(size, tokens))
        for size in (10**6, 4 * 10**6, 16 * 10**6)
        for tokens in (10**6, 8 * 10**6, 64 * 10**6)
    ]
    fitted = fit([each.run for each in points], source="test", draws=50)
    return FittedLaw.of(fitted, points, DOMAIN, 0.9)


def outlook(machine: Machine, law: FittedLaw | None = None, **changed: object) -> Outlook:
    config = PlanConfig(hours=24, ladder=LADDER, minimum_tokens_per_parameter=20, **DAY, num_workers=machine.count)  # type: ignore[arg-type]
    config = config.model_copy(update=changed)
    return look(
        config,
        machine,
        Needs(config),
        elapsed_seconds=0.0,
        sizes=config.ladder,
        shape_of=lambda size: shape_for(config, size, 32_768),
        law=law,
    )


def test_without_a_law_the_largest_size_that_sees_enough_tokens_is_trained() -> None:
    found = outlook(machine_of("h100x8"))
    assert found.rows[found.chosen].tokens_per_parameter >= 20
    larger = [each for each in found.rows.values() if each.parameters > found.rows[found.chosen].parameters]
    assert larger and all(each.tokens_per_parameter < 20 for each in larger)
    assert "from the table, not measured" in found.notes[0]
    assert found.rows[found.chosen].predicted is None


@given(st.floats(1, 40), st.floats(1, 4))
def test_more_time_never_means_a_smaller_model(hours: float, factor: float) -> None:
    machine = machine_of("h100")
    sizes = [outlook(machine, hours=each).chosen for each in (hours, hours * factor)]
    assert LADDER.index(sizes[0]) <= LADDER.index(sizes[1])


def test_a_fitted_law_chooses_the_least_loss_and_says_its_interval() -> None:
    # All is in the parameters: the largest; all is in the tokens: the smallest.
    for law, expected in ((law_of(0.5, 50, 0.4, 3, 0.5), LADDER[-1]), (law_of(0.5, 2, 0.4, 900, 0.4), LADDER[0])):
        found = outlook(machine_of("h100x8"), law)
        assert found.chosen == expected
        predicted = found.rows[expected].predicted
        assert predicted is not None and predicted.low <= predicted.value <= predicted.high
        assert "the least loss by the law fitted on this corpus" in found.reason


def test_serving_makes_the_model_smaller_and_a_price_changes_no_choice() -> None:
    law = law_of(0.5, 40, 0.3, 600, 0.35)
    best = outlook(machine_of("h100x8"), law)
    served = outlook(machine_of("h100x8"), law, economics=EconomicsConfig(inference_tokens=1e13, loss_tolerance=0.1))
    assert served.rows[served.chosen].parameters < best.rows[best.chosen].parameters
    limit = 1.1 * best.rows[best.chosen].predicted.value  # type: ignore[union-attr]
    assert served.rows[served.chosen].predicted.value <= limit  # type: ignore[union-attr]
    dear = outlook(machine_of("h100x8"), law, economics=EconomicsConfig(price_per_hour=30.0))
    assert dear.chosen == best.chosen
    one, ten = (each.rows[each.chosen].train_cost for each in (best, dear))
    assert ten == pytest.approx(10 * one)
    assert one == pytest.approx(8 * 3.0 * best.rows[best.chosen].training_seconds / 3600)


def test_what_does_not_fit_is_left_out_and_said() -> None:
    machine = machine_of("h100")
    tight = replace(machine, accelerator=replace(machine.accelerator, memory_bytes=12e9))
    found = outlook(tight)
    assert "do not fit the memory" in found.reason or all(each.micro_batch_samples for each in found.rows.values())
    none = replace(machine, accelerator=replace(machine.accelerator, memory_bytes=2e9))
    with pytest.raises(ConfigError, match=r"the smallest size needs .* GB at one window and h100 has 2\.0 GB"):
        outlook(none)


def test_the_micro_batch_is_halved_until_it_fits() -> None:
    config = PlanConfig(**DAY)  # type: ignore[arg-type]
    shape = shape_for(config, LADDER[0], 32_768)
    needed = [worker_bytes(shape, config, "bfloat16", each) for each in (16, 8, 4, 2, 1)]
    assert needed == sorted(needed, reverse=True)
    for samples, memory in zip((16, 8, 4, 2, 1), needed, strict=True):
        assert largest_micro_batch(shape, config, "bfloat16", memory / 0.9 * 1.0001) == samples
    assert largest_micro_batch(shape, config, "bfloat16", needed[-1]) is None


def test_workers_share_masters_and_momenta() -> None:
    shape = shape_for(PlanConfig(**DAY), LADDER[2], 32_768)  # type: ignore[arg-type]
    alone, eight = (worker_bytes(shape, PlanConfig(**DAY, num_workers=each), "bfloat16", 1) for each in (1, 8))  # type: ignore[arg-type]
    assert alone - eight > 7 / 8 * 12 * shape.parameters


@pytest.mark.parametrize(
    ("text", "near"), [("h10x8", "h100, h200"), ("b300", "h200, h100"), ("", "a100, cpu"), ("h100x0", "h100")]
)
def test_unknown_hardware_is_told_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"not in the table; nearest: {near}"):
        machine_of(text)


def test_a_machine_without_its_gpus_is_refused() -> None:
    here = {"cores": 2, "memory_gib": 24, "gpus": []}
    assert machine_here(here, "cpu", 1).memory_bytes == 24 * 2**30
    with pytest.raises(ConfigError, match="this machine has 0 GPUs"):
        machine_here(here, "cuda", 8)


def test_a_law_of_another_tokenizer_or_architecture_is_not_used_and_said() -> None:
    law, config = law_of(0.5, 40, 0.3, 600, 0.35), PlanConfig()
    assert law_for(config, law, DOMAIN) == (law, None)
    others: Sequence[Domain] = [
        DOMAIN.model_copy(update={name: "other"}) for name in ("tokenizer_digest", "architecture")
    ]
    for other in others:
        used, why = law_for(config, law, other)
        assert used is None and why is not None and "overnight plan --fit" in why
    assert law_for(config, None, DOMAIN) == (None, None)


def test_a_corpus_that_is_read_many_times_is_told() -> None:
    assert epochs_note(3.9e9, 10**9) == ()
    assert "5.0 times" in epochs_note(5e9, 10**9)[0]


def test_a_run_is_what_a_point_says() -> None:
    point = Point(layers=2, width=64, parameters=10, steps=2, tokens=20, loss=3.0)
    assert point.run == Run(parameters=10, tokens=20, loss=3.0)


def test_a_size_that_does_not_fit_is_never_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, int]] = []

    def speed(config: PlanConfig, shape: Shape, *_: object) -> float:
        tried.append((shape.width, config.micro_batch_samples))
        return 1e6

    monkeypatch.setattr(outlook_module, "tokens_per_second", speed)
    monkeypatch.setattr(outlook_module, "compiles", lambda *_: (False, ()))
    monkeypatch.setattr(outlook_module, "fastest_precision", lambda *_: ("bfloat16", {}))
    machine = machine_of("h100")
    small = replace(machine, measured=True, accelerator=replace(machine.accelerator, memory_bytes=20e9))
    found = outlook(small, law_of(0.5, 50, 0.4, 3, 0.5))
    fitting = {each.width: each.micro_batch_samples for each in found.rows.values() if each.micro_batch_samples}
    assert dict(tried) == fitting
    assert len(fitting) < len(found.rows)
    assert "do not fit the memory" in found.reason


def test_a_run_far_beyond_the_measured_ones_is_told() -> None:
    law = law_of(0.5, 50, 0.4, 3, 0.5)
    found = outlook(machine_of("h100x8"), law)
    assert any("ranks sizes" in each for each in found.notes)
    chosen = found.rows[found.chosen]
    assert reach_note(chosen.model_copy(update={"parameters": 10**7, "tokens": 10**8}), law) == ()
    assert reach_note(chosen, None) == ()
