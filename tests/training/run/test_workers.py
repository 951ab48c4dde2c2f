"""Two gloo workers, data-parallel and sharded, train as one does; and go on from what another number of them wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from components.training.engine.checkpoint import STATE, Checkpoint, name_of
from components.training.engine.devices.parallel import Sharded, World
from components.training.engine.model.architectures import build
from components.training.engine.trainer import Trainer
from tests.margins import Margins
from tests.training.runs import SHAPE, batches_for, recipe, run_small, same
from tests.training.together import MODES, STEPS, held_out

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of all runs of two workers, and what each of the two says."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "tests.training.together"]
    workers = [
        subprocess.Popen([*command, str(rank), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [worker.communicate()[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


OTHER_BATCH = 0.39  # what one other batch makes of the difference


def difference(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest of all parameters' differences, as a share of what training moved it by.

    Sums in another order: up to 0.03, by the processor. One other batch among the 16: 0.39.
    """
    start = dict(build(SHAPE, 0, 0).named_parameters())
    moved = {name: (each - start[name].detach()).norm() for name, each in wanted.items()}
    return max(float((found[name] - each).norm() / moved[name]) for name, each in wanted.items())


def last(run: Path) -> Checkpoint:
    found = Checkpoint(run / name_of(STEPS))
    found.verify()
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_two_workers_learn_what_one_learns(
    together: tuple[Path, list[dict[str, Any]]], tmp_path: Path, parallel: str, precision: str, margins: Margins
) -> None:
    """The same global batch, so the same weights but for the order of additions, which Muon's bfloat16 enlarges: 0.014
    in float32 and 0.045 in bfloat16, where one worker with other micro-batches differs by 0.023 and 0.047."""
    outcome, one = run_small(tmp_path, steps=STEPS, how=recipe(micro=2, precision=precision))
    found = last(together[0] / f"{parallel}-{precision}")
    assert found.num_workers == 2
    margins.error("difference", difference(found.weights(), one), most=OTHER_BATCH / 3)
    assert found.state()["tokens"] == outcome.tokens == STEPS * 8 * 32
    for ours, theirs in zip(found.state()["history"], outcome.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.01)


@pytest.mark.parametrize(("parallel", "precision"), MODES)
def test_two_workers_broken_off_and_resumed_reach_the_very_bits(
    together: tuple[Path, list[dict[str, Any]]], parallel: str, precision: str
) -> None:
    """One run saves after every step, breaks at step 10 and goes on from step 9; the other saves only at its end."""
    whole, broken = (last(together[0] / f"{parallel}-{precision}{end}") for end in ("", "-broken"))
    assert whole.tensors.keys() == broken.tensors.keys()
    for name in whole.tensors:
        assert torch.equal(whole.read(name), broken.read(name)), name
    assert whole.state()["history"] == broken.state()["history"]


def test_sharded_workers_reach_the_very_bits_of_data_parallel_ones(
    together: tuple[Path, list[dict[str, Any]]],
) -> None:
    """In float32: in bfloat16 gradients are added up in bfloat16 by the one, in float32 by the other."""
    assert same(last(together[0] / "sharded-float32").weights(), last(together[0] / "data-float32").weights())


def test_each_worker_writes_half(together: tuple[Path, list[dict[str, Any]]]) -> None:
    for parallel, precision in MODES:
        found = last(together[0] / f"{parallel}-{precision}")
        sizes = [each["bytes"] for name, each in found.files.items() if name != STATE]
        assert len(sizes) == 2
        assert max(sizes) < 1.2 * min(sizes)


def test_activations_computed_again_change_nothing(together: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    assert same(last(together[0] / "recomputed").weights(), last(together[0] / "sharded-float32").weights())
    _, plain = run_small(tmp_path / "plain", steps=12)
    _, again = run_small(tmp_path / "again", steps=12, how=recipe(activation_checkpointing=True))
    assert same(plain, again)


def test_two_then_one_then_two_workers_read_each_sample_once(
    together: tuple[Path, list[dict[str, Any]]], tmp_path: Path, margins: Margins
) -> None:
    """F5. Two data-parallel workers break off at step 5, one at step 10, two that shard end the epoch."""
    logs = [{int(step): ids for step, ids in each["samples"].items()} for each in together[1]]
    shares = [[len(log.get(step, [])) for log in logs] for step in range(STEPS)]
    assert shares == [[4, 4]] * 4 + [[8, 0]] * 5 + [[4, 4]] * 7
    assert sorted(number for log in logs for ids in log.values() for number in ids) == list(range(128))
    _, one = run_small(tmp_path, steps=STEPS)
    margins.error("difference", difference(last(together[0] / "elastic").weights(), one), most=OTHER_BATCH / 3)


def test_a_sharded_model_is_validated_as_a_whole_one(together: tuple[Path, list[dict[str, Any]]]) -> None:
    trainer = Trainer(build(SHAPE, 0, 0), recipe(), World(), lambda _: None)
    trainer.warm_up(batches_for(World())(0))
    assert together[1][0]["figure"] == pytest.approx(held_out(trainer), rel=1e-5)
    assert together[1][1]["figure"] is None


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_number_has_one_owner_and_one_holder(size: int) -> None:
    """Matrices of one shape, some as experts, some with fewer rows than workers, in shares of whole matrices."""
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4, 2, 3), (2, 3), (3, 2, 3))]
    shares = [Sharded(parameters, 6, World(rank=rank, size=size)) for rank in range(size)]
    owned: list[int] = []
    held = {number: [] for number in range(len(parameters))}  # type: dict[int, list[int]]
    for share in shares:
        assert share.start % 6 == 0
        for segments in share.owned:
            for each in segments:
                owned += range(share.start + each.owned_at, share.start + each.owned_at + each.length)
        for segments in share.held:
            for each in segments:
                held[each.parameter].append(each.length)
    assert sorted(owned) == list(range(54))
    assert {number: sum(lengths) for number, lengths in held.items()} == {0: 6, 1: 24, 2: 6, 3: 18}
