"""A bad batch is recognised before its update, its document is named first, and what is then done is as if it had been
known from the start, bit for bit: with one worker and two, killed in between and not."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.training.engine import checkpoint
from components.training.engine.batches.batch import Batch, next_token_batch, number_of_batch
from components.training.engine.checkpoint import Checkpoint, name_of
from components.training.engine.loop import train
from components.training.engine.model.architectures import build
from components.training.engine.schedule import fixed
from components.training.engine.spikes import RECORDS, Rules, SpikeError, Watch, by_document, robust_z, scores
from components.training.engine.trainer import Trainer, World
from components.training.parameters.spikes import SpikesConfig
from tests.training.runs import SHAPE, TOKENS, recipe, same

BAD = 30  # the batch with noise in it, which is document 999
STEPS = 40
RULES = Rules(
    policy="skip",
    threshold=5.0,
    window_steps=16,
    warmup_steps=12,
    rewind_batches=0,
    skip_batches=1,
    max_skips=2,
    top_documents=3,
)
# Loss and gradient norm of steps 490 to 624 of a default run. The last step's norm is 2.5 times the median.
ORDINARY = [tuple(row) for row in np.loadtxt(Path(__file__).with_name("ordinary_steps.csv"), delimiter=",", skiprows=1)]


class Planted:
    """Batches of the hidden rule, a window of noise in those of some numbers."""

    def __init__(
        self,
        world: World | None = None,
        skipped: Sequence[int] = (),
        bad: Sequence[int] = (BAD,),
        phase_at: int | None = None,
    ) -> None:
        self.phase_at = phase_at
        self.world = world or World()
        self.skipped = list(skipped)
        self.bad = bad

    def __call__(self, step: int) -> Batch:
        windows = self._windows(step)
        tokens = np.stack([TOKENS[each * 32 : each * 32 + 33] for each in windows])
        tokens[windows == 999 % 128] = np.random.default_rng(step).integers(0, 128, 33)
        return next_token_batch(tokens)

    def begins_phase(self, step: int) -> bool:
        return step == self.phase_at

    def described(self, step: int) -> list[dict[str, Any]]:
        return [{"window": int(each)} for each in self._global(step)]

    def documents(self, step: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
        return np.broadcast_to(self._windows(step)[:, None], shape)

    def ids(self, rows: Sequence[int]) -> list[str]:
        return [f"document {row}" for row in rows]

    def _global(self, step: int) -> NDArray[np.int64]:
        number = number_of_batch(step, self.skipped)
        windows = np.random.default_rng(number).permutation(999 % 128)[:8]
        return np.append(windows[:7], 999 % 128) if number in self.bad else windows

    def _windows(self, step: int) -> NDArray[np.int64]:
        share = 8 // self.world.size
        return self._global(step)[self.world.rank * share : (self.world.rank + 1) * share]


def run(
    folder: Path,
    reader: Planted,
    rules: Rules | None = RULES,
    note: Callable[[str], None] = lambda _: None,
    *,
    checkpoint_seconds: float = 1e9,
) -> dict[str, torch.Tensor]:
    """Train to the end; the weights."""
    folder.mkdir(exist_ok=True)
    trainer = Trainer(build(SHAPE, 0, 0), recipe(micro=4, checkpoint_seconds=checkpoint_seconds), reader.world, note)
    train(
        trainer,
        batches=reader,
        schedule=fixed(3, 0.1, [(STEPS - 5, STEPS)]),
        pace=None,
        run=folder,
        report=lambda _: None,
        validate=None,
        watch=Watch(rules, reader, folder) if rules else None,
    )
    return Checkpoint(folder / name_of(STEPS)).weights()


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


def stop_after(text: str, times: int = 1) -> Callable[[str], None]:
    """A note that ends the process, so to speak, when it says this."""

    def note(told: str) -> None:
        if text in told:
            raise KeyboardInterrupt

    return note


def test_a_spike_is_passed_over_as_if_it_had_been_known_from_the_start(tmp_path: Path) -> None:
    reader = Planted()
    weights = run(tmp_path / "found", reader)
    (record,) = records(tmp_path / "found")
    assert (record["step"], record["batch"], record["skipped"]) == (BAD, BAD, [BAD])
    assert record["documents"][0]["id"] == f"document {999 % 128}" and record["documents"][0]["tokens"] == 32
    assert record["documents"][0]["nats_per_token"] > 4 > 2 > record["documents"][1]["nats_per_token"]
    assert len(record["documents"]) == 3 and len(record["samples"]) == 8
    assert record["loss_z"] > RULES.threshold and reader.skipped == [BAD]
    assert same(weights, run(tmp_path / "known", Planted(skipped=[BAD]), rules=None))
    state = Checkpoint(tmp_path / "found" / name_of(STEPS)).state()
    assert state["skipped"] == [BAD] and len(state["recent"]) == RULES.window_steps


def test_a_run_killed_after_its_decision_takes_it_again(tmp_path: Path) -> None:
    expected = run(tmp_path / "unbroken", Planted())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Planted(), note=stop_after("spike at"), checkpoint_seconds=0.0)
    told: list[str] = []
    assert same(run(tmp_path / "killed", Planted(), note=told.append), expected)
    assert any(each.startswith("resumed at step") for each in told)
    assert not any("spike at" in each for each in told), "its batch is not read again"
    assert (tmp_path / "killed" / RECORDS).read_bytes() == (tmp_path / "unbroken" / RECORDS).read_bytes()


def test_a_rewind_passes_over_batches_before_the_spike_too(tmp_path: Path) -> None:
    rules = replace(RULES, rewind_batches=3, skip_batches=5)
    told: list[str] = []
    how = recipe(micro=4, checkpoint_seconds=0.0)
    assert how.checkpoints_kept == 2, "so the oldest that is kept is two steps before the spike"
    weights = run(tmp_path / "back", Planted(), rules, told.append, checkpoint_seconds=0.0)
    (record,) = records(tmp_path / "back")
    assert record["skipped"] == [BAD - 1, BAD, BAD + 1]
    assert any(each.startswith(f"resumed at step {BAD - 1}") for each in told)
    assert same(weights, run(tmp_path / "known", Planted(skipped=record["skipped"]), rules=None))


def test_a_kill_between_decision_and_rewind_does_not_go_on_from_a_checkpoint_behind_it(tmp_path: Path) -> None:
    rules = replace(RULES, rewind_batches=1, skip_batches=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Planted(), rules, stop_after("spike at"), checkpoint_seconds=0.0)
    assert checkpoint.steps(tmp_path / "killed") == [BAD, BAD - 1], "both are there, and one has read batch 29"
    told: list[str] = []
    weights = run(tmp_path / "killed", Planted(), rules, told.append)
    assert any(each.startswith(f"resumed at step {BAD - 1}") for each in told)
    assert same(weights, run(tmp_path / "known", Planted(skipped=[BAD - 1, BAD]), rules=None))


def test_warn_changes_nothing_and_stop_ends_with_the_checkpoint_kept(tmp_path: Path) -> None:
    told: list[str] = []
    warned = run(tmp_path / "warned", Planted(), replace(RULES, policy="warn"), told.append)
    assert same(warned, run(tmp_path / "unwatched", Planted(), rules=None))
    assert len(records(tmp_path / "warned")) == 1 and records(tmp_path / "warned")[0]["skipped"] == []
    assert [each for each in told if "spike at step 30, batch 30: loss" in each]
    with pytest.raises(SpikeError, match=r"spike at step 30.*document 103, 32 tokens.*pretrain\.skip") as caught:
        run(tmp_path / "stopped", Planted(), replace(RULES, policy="stop"), checkpoint_seconds=0.0)
    assert "\n" not in str(caught.value)
    Checkpoint(tmp_path / "stopped" / name_of(BAD)).verify()


def test_after_so_many_skips_the_run_ends(tmp_path: Path) -> None:
    with pytest.raises(SpikeError, match=r"batch 34.*after 1 that were skipped"):
        run(tmp_path / "run", Planted(bad=(BAD, 34)), replace(RULES, max_skips=1))
    assert [record["skipped"] for record in records(tmp_path / "run")] == [[BAD], []]


def test_a_level_that_stays_is_told_and_then_the_new_normal(tmp_path: Path) -> None:
    run(tmp_path / "run", Planted(bad=range(BAD - 5, STEPS)), replace(RULES, policy="warn", threshold=4.0))
    found = [record["step"] for record in records(tmp_path / "run")]
    assert found == list(range(BAD - 5, BAD - 5 + len(found))) and 1 <= len(found) <= RULES.window_steps // 2


def test_another_mixture_of_sources_is_no_spike(tmp_path: Path) -> None:
    run(tmp_path / "run", Planted(bad=range(BAD, STEPS), phase_at=BAD), replace(RULES, policy="stop"))
    assert not (tmp_path / "run" / RECORDS).exists()


WORKER = """
import sys, torch
from dataclasses import replace
from pathlib import Path
from components.training.engine.trainer import World
from tests.training.engine.test_spikes import RULES, Planted, run
rank, place, out = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=2)
reader = Planted(World(rank=rank, size=2))
run(out, reader, replace(RULES, rewind_batches=1, skip_batches=2), checkpoint_seconds=0.1)
print(reader.skipped)
torch.distributed.destroy_process_group()
"""


@pytest.mark.drill
def test_two_workers_take_one_decision(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, str(rank), place, str(tmp_path / "two")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    answers = [worker.communicate(timeout=120)[0].strip() for worker in workers]
    assert answers == ["[29, 30]", "[29, 30]"]
    (two,) = records(tmp_path / "two")
    run(tmp_path / "one", Planted(), replace(RULES, rewind_batches=1, skip_batches=2), checkpoint_seconds=0.0)
    (one,) = records(tmp_path / "one")
    assert two["samples"] == one["samples"] and two["skipped"] == one["skipped"]
    assert [each["id"] for each in two["documents"]] == [each["id"] for each in one["documents"]]
    for mine, theirs in zip(one["documents"], two["documents"], strict=True):
        assert mine["nats_per_token"] == pytest.approx(theirs["nats_per_token"], rel=0.05)
    weights = [Checkpoint(tmp_path / each / name_of(STEPS)).weights() for each in ("one", "two")]
    for name, each in weights[0].items():
        torch.testing.assert_close(weights[1][name], each, rtol=0.1, atol=0.05)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=3, max_size=40), st.floats(-100, 100), st.floats(0.1, 10))
def test_the_score_is_the_published_one_and_knows_no_unit(past: list[float], value: float, scale: float) -> None:
    deviations = np.abs(np.array(past) - np.median(past))
    if np.median(deviations) < 0.01 * max(1.0, abs(np.median(past))):
        return
    expected = 0.6745 * (value - np.median(past)) / np.median(deviations)
    assert robust_z(value, past) == pytest.approx(expected)
    assert robust_z(value * scale, [each * scale for each in past]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_one_outlier_of_the_past_hides_no_spike() -> None:
    past = [2.0 + 0.01 * (number % 5) for number in range(40)]
    assert robust_z(3.0, [*past, 50.0]) > 20 > robust_z(2.05, [*past, 50.0])


def test_ordinary_steps_of_a_real_run_are_no_spikes() -> None:
    window = SpikesConfig().window_steps
    found = [scores(ORDINARY[max(0, step - window) : step], *ORDINARY[step]) for step in range(32, len(ORDINARY))]
    assert max(max(each) for each in found) < 0.7 * SpikesConfig().threshold
    norms = np.log([norm for _, norm in ORDINARY])
    assert robust_z(norms[-1], norms[:-1].tolist()) > 9, "by the deviation of ordinary norms it would be one"


@pytest.mark.parametrize(
    ("loss", "norm"),
    [
        pytest.param(6.95, 1.55, id="four windows of noise"),
        pytest.param(5.88, 0.70, id="four windows with shuffled labels"),
        pytest.param(6.87, 1.73, id="after one step at 30 times the rate"),
        pytest.param(3.27, 6.00, id="a gradient of 19 times the norm, a loss as ever"),
    ],
)
def test_what_was_planted_in_such_runs_is_a_spike(loss: float, norm: float) -> None:
    assert max(scores(ORDINARY[:-1], loss, norm)) > SpikesConfig().threshold


def test_documents_come_by_what_they_added() -> None:
    documents = np.array([[1, 1, 1, 1], [2, 2, 3, 3]])
    labels = np.array([[5, 5, 5, -100], [5, 5, 5, 5]])
    nats = np.array([[3, 3, 3, 0], [4, 0.5, 0.5, 0.5]], dtype=np.float32)
    found = by_document(documents, labels, nats, World())
    assert found.tolist() == [[1, 3, 9], [2, 2, 4.5], [3, 2, 1]]
