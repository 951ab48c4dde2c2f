"""The stage on a real Ray of two nodes, while workers are killed, stopped, taken away, and the disk fills.

Every drill runs the product's own worker with one thing added: `drilled` writes down which samples each worker read at
which step, and does at a step what the drill's file says.
"""

import gc
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from components.core import artifact
from components.core.config import StepConfig, read_settings
from components.core.errors import ArtifactError, ConfigError, OvernightError
from components.core.events import read_events
from components.machine import cluster, services
from components.training import plan as planning
from components.training import pretrain
from components.training.config import PretrainConfig, read_plan
from components.training.parameters.faults import FaultsConfig
from components.training.run import micro_batch, workers
from tests.training import test_pretrain
from tests.training.test_pretrain import PLAN, PRETRAIN, command, finish, make_inputs, unbroken

STEPS = 60
HANG_SECONDS = 15.0
TWO = {**PLAN, "num_workers": 2, "fixed": {"steps": STEPS, "size": {"layers": 2, "width": 64}}}
DRILLED = {**PRETRAIN, "checkpoint_seconds": 0.05, "faults": {"hang_seconds": HANG_SECONDS, "max_failures": 5}}


def drilled(content: str) -> dict[str, Any]:
    """workers.train_on_ray, observed and disturbed. The folder of the state holds drill.json and samples.jsonl."""
    from components.training.run.samples import Samples  # noqa: PLC0415 - torch: in the workers alone
    from components.training.run.worker_input import Work  # noqa: PLC0415 - as above

    folder = Work.model_validate_json(content).run.parents[2]
    drill = json.loads((folder / "drill.json").read_text())
    read = Samples.__call__

    def observed(self: Any, step: int) -> Any:
        batch = read(self, step)
        rows = [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in batch.inputs]
        with (folder / "samples.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "rank": self.rank, "size": self.world_size, "rows": rows}) + "\n")
        # A worker alone is slower: on a slow machine forty steps were over before another node had joined.
        time.sleep(drill.get("step_seconds", 0.0) * (5 if self.world_size == 1 else 1))
        for each in drill["events"]:
            done = folder / f"done-{each['step']}"
            if step == each["step"] and self.rank == each["rank"] and not done.exists():
                done.write_text(json.dumps({"time": time.time(), "pid": os.getpid()}))
                if "counted" in each:
                    Path(each["counted"]).write_text("oom_kill 4\n")
                if "signal" in each:
                    os.kill(os.getpid(), each["signal"])
                else:
                    room = os.statvfs(each["fill"])
                    Path(each["fill"], f"filler-{step}").write_bytes(
                        bytes(max(0, room.f_bavail * room.f_bsize - 2**16))
                    )
        return batch

    Samples.__call__ = observed  # type: ignore[method-assign]
    return workers.train_on_ray(content)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """A Ray of two nodes with one core each, joined by this process."""
    with pytest.MonkeyPatch.context() as patch:
        # As cluster.start_head does: Ray would run its workers at nice 15.
        patch.setenv("RAY_worker_niceness", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
        nodes.add_node(num_cpus=1, object_store_memory=10**8)
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes
        ray.shutdown()
        nodes.shutdown()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves a socket to the collector
            gc.collect()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs for two workers, and a state of its own."""
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("OVERNIGHT_CYCLE", raising=False)
    monkeypatch.setattr(workers, "train_on_ray", drilled)
    monkeypatch.setattr(test_pretrain, "PLAN", TWO)
    make_inputs(tmp_path)
    return tmp_path


def train(folder: Path, out: str, config: dict[str, Any] = DRILLED, **drill: Any) -> artifact.Manifest:
    """The stage in this process, with a drill."""
    (folder / "drill.json").write_text(json.dumps({"events": [], **drill}))
    paths = {name: folder / name for name in ("tokens", "tokenizer", "plan")}
    return pretrain.run(PretrainConfig.model_validate_json(json.dumps(config)), **paths, out=folder / out)


def notes(folder: Path) -> list[dict[str, Any]]:
    events, _ = read_events(folder / "state" / "events" / "manual" / "pretrain.jsonl")
    return [each for each in events if each["kind"] == "note"]


def reads(folder: Path) -> dict[int, tuple[int, list[str]]]:
    """Step -> how many workers took it, and what they read, in the order of the batch. The last reading counts: a step
    that is repeated after a failure had not entered the checkpoint."""
    found: dict[int, dict[int, Any]] = {}
    for line in (folder / "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = found.setdefault(row["step"], {})
        if any(each["size"] != row["size"] for each in step.values()):
            step.clear()
        step[row["rank"]] = row
    return {
        step: (len(ranks), [each for rank in sorted(ranks) for each in ranks[rank]["rows"]])
        for step, ranks in found.items()
    }


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_workers_killed_and_stopped_leave_the_very_bytes_of_an_unbroken_run(two_nodes: Cluster, folder: Path) -> None:
    """F1 and F3, on two nodes: SIGKILL of worker 1 at step 20, SIGSTOP of worker 1 at step 40."""
    whole = train(folder, "whole")
    expected = reads(folder)
    (folder / "samples.jsonl").unlink()
    events = [
        {"step": 20, "rank": 1, "signal": int(signal.SIGKILL)},
        {"step": 40, "rank": 1, "signal": int(signal.SIGSTOP)},
    ]
    broken = train(folder, "broken", events=events)
    assert broken.digest == whole.digest
    assert [each.sha256 for each in broken.files] == [each.sha256 for each in whole.files]
    found = reads(folder)
    assert {step: found[step] for step in range(STEPS)} == {step: expected[step] for step in range(STEPS)}
    said = [each["text"] for each in notes(folder)]
    assert any("worker 1: its process died" in each for each in said)
    assert any("worker 1: it has not answered for" in each for each in said)
    assert sum("resumed at step" in each for each in said) >= 2
    stopped = json.loads((folder / "done-40").read_text())
    noticed = next(
        each["time"] for each in notes(folder) if each["time"] > stopped["time"] and "starting again" in each["text"]
    )
    assert noticed - stopped["time"] < 2 * HANG_SECONDS
    assert not Path(f"/proc/{stopped['pid']}").exists(), "the stopped worker still holds its memory"


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_worker_killed_for_its_memory_goes_on_with_half_the_micro_batch(
    two_nodes: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill is real; the kernel's count of such kills is a file, so that the machine's memory need not run out."""
    counters = folder / "vmstat"
    counters.write_text("oom_kill 3\n")
    monkeypatch.setattr(micro_batch, "KERNEL", counters)
    plain = {"step": 10, "rank": 1, "signal": signal.SIGKILL}
    hungry = {"step": 20, "rank": 0, "signal": signal.SIGKILL, "counted": str(counters)}
    manifest = train(folder, "out", events=[plain, hungry])
    told = [each["text"] for each in notes(folder) if "want of memory" in each["text"]]
    assert told == ["killed for want of memory with micro-batches of 4 samples, going on with 2"]
    assert manifest.statistics["decided"]["micro_batch_samples"] == 2 and manifest.statistics["steps"] == STEPS
    batches = reads(folder)
    assert [batches[step][0] for step in range(STEPS)] == [2] * STEPS
    assert {len(rows) for _, rows in batches.values()} == {8}, "the global batch stays"


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_sharded_workers_on_ray_leave_the_weights_of_data_parallel_ones(
    two_nodes: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {**TWO, "fixed": {**TWO["fixed"], "steps": 10}}  # type: ignore[dict-item]
    weights = []
    for parallel in ("data", "sharded"):
        place = folder / parallel
        place.mkdir()
        monkeypatch.setenv("OVERNIGHT_STATE", str(place / "state"))
        monkeypatch.setattr(test_pretrain, "PLAN", {**short, "parallel": parallel})
        make_inputs(place)
        assert read_plan(place / "plan").parallel == parallel
        train(place, "out")
        weights.append((place / "out" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_loss_that_is_not_a_number_ends_the_stage_without_another_try(two_nodes: Cluster, folder: Path) -> None:
    rates = {"matrix": 1e30, "embedding": 1e30, "output": 1e30, "norm": 1e30}
    told = r"step \d+: the (loss|norm of the gradient) is (nan|inf).*; "
    with pytest.raises(OvernightError, match=told + "there was no checkpoint yet"):
        train(folder, "out", {**DRILLED, "rates": rates, "checkpoint_seconds": 600})
    with pytest.raises(OvernightError, match=told + "the last good checkpoint is kept in") as caught:
        train(folder, "out", {**DRILLED, "rates": rates, "checkpoint_seconds": 0.0})
    assert list(Path(str(caught.value).rsplit(" ", 1)[1]).glob("step-*/checkpoint.json"))
    assert sum("workers started" in each["text"] for each in notes(folder)) == 2
    assert not (folder / "out").exists()


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_full_disk_ends_the_stage_and_the_rerun_passes(two_nodes: Cluster, folder: Path) -> None:
    """F7: the state lies on a file system of 24 MB. It is filled at ten steps: a checkpoint that goes makes room."""
    state = folder / "state"
    state.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(state)], check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with pytest.raises(OvernightError, match="No space left on device; free"):
            train(folder, "out", events=[{"step": step, "rank": 0, "fill": str(state)} for step in range(20, 30)])
        for filler in state.glob("filler-*"):
            filler.unlink()
        assert not (folder / "out").exists()
        assert not list(state.glob("checkpoints/*/.writing-*"))
        assert list(state.glob("checkpoints/*/step-*/checkpoint.json")), "the last good checkpoint is gone"
        manifest = train(folder, "out")
        assert manifest.statistics["steps"] == STEPS
        assert any("resumed at step" in each["text"] for each in notes(folder))
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_cluster_that_shrinks_and_grows_reads_each_sample_once(two_nodes: Cluster, folder: Path) -> None:
    """F5: the second node is killed at step 15 and a new one joins; 2 -> 1 -> 2 workers."""
    faults = {"hang_seconds": 60.0, "minimum_workers": 1, "resize_seconds": 1.0}
    samples = folder / "samples.jsonl"

    def taken(size: int, step: int) -> bool:
        lines = [json.loads(line) for line in samples.read_text().splitlines()] if samples.exists() else []
        return any(each["size"] == size and each["step"] >= step for each in lines)

    with ThreadPoolExecutor(max_workers=1) as pool:  # nodes are added by the main thread alone
        stage = pool.submit(train, folder, "out", {**DRILLED, "faults": faults}, step_seconds=0.4)
        wait_until(lambda: taken(2, 15) or stage.done())
        two_nodes.remove_node(next(iter(two_nodes.worker_nodes)), allow_graceful=False)
        wait_until(lambda: taken(1, 20) or stage.done())
        two_nodes.add_node(num_cpus=1, object_store_memory=10**8)
        manifest = stage.result(timeout=300)
    found = reads(folder)
    sizes = [found[step][0] for step in range(1, STEPS)]  # every attempt warms up on step 0
    changes = [sizes[0]] + [after for before, after in pairwise(sizes) if before != after]
    assert changes == [2, 1, 2]
    everything = [row for step in range(STEPS) for row in found[step][1]]
    assert manifest.statistics["tokens"] == STEPS * 8 * 32
    assert len(everything) == STEPS * 8
    epoch = 4095 // 32  # windows of an epoch
    assert len(set(everything[:epoch])) == epoch


def wait_until(holds: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_when_ray_dies_the_stage_says_so_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4: SIGKILL of Ray's head, with all that it started, once a checkpoint is written."""
    monkeypatch.setattr(test_pretrain, "PLAN", {**PLAN, "fixed": {"steps": 2000, "size": {"layers": 2, "width": 64}}})
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_RAY_NUM_CPUS", "1")
    make_inputs(tmp_path)
    settings = read_settings()
    cluster.start_head(settings)
    process = command(tmp_path, "out", "state")
    wait_until(lambda: bool(list(tmp_path.glob("state/checkpoints/*/step-*/checkpoint.json"))))
    head = services.running(settings, cluster.SERVICE)
    assert head is not None
    os.kill(head.pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=45)
    assert process.returncode == 1
    assert "pretrain: Ray stopped answering at 127.0.0.1:" in errors
    assert "run the same command again" in errors
    finish(command(tmp_path, "out", "state"))
    said = [each["text"] for each in notes(tmp_path)]
    assert any(each.startswith("resumed at step") for each in said), said
    for path in unbroken(tmp_path).iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("file", ["tokens/train-00000.tokens.npy", "tokenizer/tokenizer.json", "plan/plan.json"])
def test_a_harmed_input_is_named_before_ray_is_joined(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, harm: str
) -> None:
    """F6: every file that a manifest lists is read and hashed first."""
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if harm == "flip" else content[:-1])
    wanted = {"flip": "found sha256 .* the manifest says", "truncate": "found .* bytes", "delete": "cannot be read"}
    with pytest.raises(ArtifactError, match=rf"{path.name}: {wanted[harm]}"):
        train(tmp_path, "out")
    assert not ray.is_initialized() or not (tmp_path / "state" / "checkpoints").exists()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs to harm copies of."""
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


def test_a_checkpoint_is_named_only_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "step-00000001").mkdir()
    assert workers.kept_in(tmp_path) == "there was no checkpoint yet"
    (tmp_path / "step-00000001" / "checkpoint.json").touch()
    assert workers.kept_in(tmp_path) == f"the last good checkpoint is kept in {tmp_path}"


def test_an_older_plan_is_named(inputs: Path, tmp_path: Path) -> None:
    code = Path(planning.__file__)
    content = json.loads((inputs / "plan" / "plan.json").read_text())
    del content["shape"]
    with artifact.create(tmp_path / "plan", stage="plan", config=StepConfig(), inputs=[], code=code) as draft:
        (draft.path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"plan\.json: not a plan: .*shape.*; run plan again"):
        read_plan(tmp_path / "plan")


def plan_of(inputs: Path, **changes: Any) -> Any:
    return read_plan(inputs / "plan").model_copy(update=changes)


def test_a_cluster_too_small_is_refused_before_ray_waits_for_it(inputs: Path) -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 4.0, "memory": 1e9}]
    wanted = workers.threads_per_worker
    with pytest.raises(
        ConfigError, match="the plan needs 1 workers on cuda, each with a core and a GPU; Ray has CPU 12"
    ):
        wanted(plan_of(inputs, device="cuda"), FaultsConfig(), nodes)
    with pytest.raises(ConfigError, match="needs 13 workers on cpu, each with a core; Ray has CPU 12 on 2 nodes, room"):
        wanted(plan_of(inputs, num_workers=13), FaultsConfig(), nodes)
    assert wanted(plan_of(inputs, num_workers=13), FaultsConfig(minimum_workers=4), nodes) == 1


def test_workers_get_the_cores_that_let_all_be_placed(inputs: Path) -> None:
    def cores(num_workers: int, *nodes: dict[str, float], device: str = "cpu") -> int:
        return workers.threads_per_worker(
            plan_of(inputs, num_workers=num_workers, device=device), FaultsConfig(), nodes
        )

    assert cores(1, {"CPU": 2}) == 2
    assert cores(4, {"CPU": 8}, {"CPU": 8}, {"CPU": 8}) == 4  # 24 cores for 4 workers: 6 each would fit only 3
    assert cores(2, {"CPU": 8}, {"CPU": 4}) == 4
    assert cores(8, {"CPU": 96, "GPU": 8}, device="cuda") == 12
    assert cores(2, {"CPU": 16, "GPU": 1}, {"CPU": 4, "GPU": 1}, device="cuda") == 4


def test_a_batch_that_some_number_of_workers_cannot_share_is_refused(inputs: Path) -> None:
    tokens, tokenizer = artifact.read(inputs / "tokens"), artifact.read(inputs / "tokenizer")
    plan = plan_of(inputs, num_workers=4)
    pretrain.check_inputs(tokens, tokenizer, plan)
    with pytest.raises(pretrain.DataError, match=r"plan\.batch_samples 8 cannot be shared by 3 workers evenly"):
        pretrain.check_inputs(tokens, tokenizer, plan, 2)
