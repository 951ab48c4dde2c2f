"""Run the workers of a stage that trains on Ray Train: how many, on what, and what becomes of a failure.

A worker that dies, or does not answer for `faults.hang_seconds`, takes all with it: they start again from the last
good checkpoint, `faults.max_failures` times, with as many as the cluster has room for when `faults.minimum_workers`
allows fewer than planned; after a kill for want of memory with half the micro-batch. An end on purpose
(EndOfRunError, a full disk) is not tried again. When Ray itself dies the stage ends with one line and the same command
goes on.

Importing this module takes 2 s of processor time (ray.train, pandas), so the stage imports it while it joins Ray.
Not covered: an autoscaled cluster that has fewer nodes now than it may grow to is refused as too small; a driver that
is stopped (SIGSTOP).
"""

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback, get_context, report
from ray.train.backend import Backend, BackendConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from components.core.config import Settings
from components.core.errors import ConfigError, OvernightError, one_line
from components.core.events import Events
from components.machine import cluster
from components.training.config import Plan
from components.training.engine.devices import cores
from components.training.parameters.faults import FaultsConfig
from components.training.run import micro_batch
from components.training.run.worker_input import Work, Workload

if TYPE_CHECKING:
    from components.training.engine.devices.parallel import World

# How a worker hands an end on purpose to the driver: as its result, which Ray Train does not try again.
FATAL = "fatal"
# Ray Train takes one report a poll and a worker waits until its last one is taken: at Ray's 2 s a run that reported
# every 0.3 s stood still for 14 of its 16 s, and its end was seen up to 2 s late.
POLL_SECONDS = 0.2
# Ray's control store is asked this often whether it still listens; a driver of its own accord waits a minute or more.
PULSE_SECONDS = 2.0
PULSES_MISSED = 3
DIED = "its process died (killed, or out of memory)"
METRICS = (
    "loss",
    "gradient_norm",
    "learning_rate",
    "tokens_per_second",
    "validation_bits_per_byte",
    "flops_utilisation",
    "goodput",
    "memory_bytes",
    "data_stall_seconds",
    "data_stall_share",
)


class Tell(UserCallback):  # type: ignore[misc]  # ray has no types
    """Turns what workers report into events. Runs in Ray Train's controller, on the driver's machine."""

    def __init__(self, stage: str, settings: Settings, max_failures: int) -> None:
        self.stage, self.settings = stage, settings
        self.max_failures = max_failures
        self.failures = 0

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Worker 0 speaks for all."""
        events = Events(self.stage, self.settings)
        row = metrics[0]
        for note in row["notes"]:
            events.note(note)
        if row.get("step") is None:
            return
        by_source = {f"loss_{name}": loss for name, loss in row["loss_by_source"].items()}
        known = {name: row[name] for name in METRICS if row[name] is not None}
        events.metrics(known | by_source, step=row["step"])
        if row["training_seconds"] is not None:
            events.progress(min(row["seconds"], row["training_seconds"]), row["training_seconds"], "seconds")
        else:
            events.progress(row["step"], row["total_steps"], "steps")

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Which worker failed, why, and what happens now."""
        self.failures += 1
        left = self.max_failures - self.failures
        then = f"starting again from the last good checkpoint, {left} more times" if left >= 0 else "giving up"
        causes = "; ".join(f"worker {rank}: {cause_of(error)}" for rank, error in sorted(worker_exceptions.items()))
        Events(self.stage, self.settings).note(f"{causes}; {then}")


class Shortage(UserCallback):  # type: ignore[misc]  # ray has no types
    """Halves the micro-batch of the next attempt where a worker was killed for want of memory: the same one would be
    killed again. `planned`: samples of a worker's micro-batch."""

    def __init__(self, stage: str, settings: Settings, run: Path, planned: int) -> None:
        self.stage, self.settings, self.run, self.planned = stage, settings, run, planned
        self.counters = micro_batch.KERNEL
        self.kills = micro_batch.kernel_kills(self.counters)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ray or the kernel said why, before the workers start again."""
        before, self.kills = self.kills, micro_batch.kernel_kills(self.counters)
        died = any(cause_of(error) == DIED for error in worker_exceptions.values())
        by_ray = any(micro_batch.RAY_SAYS in str(error) for error in worker_exceptions.values())
        if not by_ray and not (died and self.kills > before):
            return
        if message := micro_batch.halve(self.run, self.planned):
            Events(self.stage, self.settings).note(message)


class SharedDevices(Backend):  # type: ignore[misc]  # ray has no types
    """Every worker of a node sees all GPUs of the node's workers, so that NCCL finds the direct way between them."""

    share_cuda_visible_devices = True


class SharedDevicesConfig(BackendConfig):  # type: ignore[misc]  # ray has no types
    """Of SharedDevices."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train asks for."""
        return SharedDevices


class RayTrainer(DataParallelTrainer):  # type: ignore[misc]  # ray has no types
    """Ray Train without what a run of ours has no use for: an actor for datasets of Ray Data, and one that outlives
    the controller to clear its placement group, which goes with the driver's job anyway. Each is a process that
    imports for 1 to 2 s, on the cores that the workers start on."""

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, unused)]


def train_on_ray(content: str) -> dict[str, Any]:
    """What each worker of pretraining runs. `content` is the JSON of a Work."""
    work = Work.model_validate_json(content)

    def train(world: "World") -> dict[str, Any]:
        from components.training.run import worker  # noqa: PLC0415 - torch: in the workers alone

        return worker.train_worker(
            work, world, report=report, agree=lambda value: float(broadcast_from_rank_zero(value))
        )

    return in_world(work, train)


def in_world(work: Workload, train: Callable[["World"], dict[str, Any]]) -> dict[str, Any]:
    """Run what a worker does among the others: they have found each other, and hear why one ends the run."""
    context = get_context()
    size = context.get_world_size()
    report({"notes": [f"{size} of {work.num_workers} workers started"]})
    from components.training.engine.devices.parallel import World  # noqa: PLC0415 - as above
    from components.training.run import process_group, worker  # noqa: PLC0415 - as above

    device = f"cuda:{context.get_local_rank()}" if work.device == "cuda" else "cpu"
    world = World(rank=context.get_world_rank(), size=size, device=device)
    with process_group.joined(world, broadcast_from_rank_zero, work.faults.hang_seconds) as group:
        try:
            process_group.check_shared(work.run, group)
            return train(world)
        except Exception as error:
            if (reason := worker.end_of(error) or group.reason()) is None:
                raise
            group.tell(reason)
            return {FATAL: reason}


def run_workers(
    work: Workload,
    settings: Settings,
    stage: str,
    loop: Callable[[str], dict[str, Any]] | None = None,
    *,
    parameter: str = "plan.num_workers",
) -> dict[str, Any]:
    """Train to the end and return worker 0's figures. Ray is joined; events are those of `stage`. Raises OvernightError
    in one line.

    loop        what each worker runs, of the JSON of its `work`; None: train_on_ray
    parameter   that says how many workers there are
    """
    faults, where = work.faults, cluster.joined_at()
    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    threads = threads_per_worker(work, faults, nodes, parameter)
    os.environ |= {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(POLL_SECONDS),
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(faults.hang_seconds),
        # It asks which nodes are about to be taken away: never the only one.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": str(int(len(nodes) > 1)),
    }
    try:
        figures = _while_ray_answers(
            _trainer(work.model_copy(update={"threads": threads}), loop or train_on_ray, settings, stage)
        )
    except ray.train.TrainingFailedError as error:
        raise OvernightError(
            f"training failed {faults.max_failures + 1} times, last because of {cause_of(error)}; {kept_in(work.run)}: "
            "run the same command again"
        ) from error
    except RayError as error:  # of the controller's actor, or of the node below it
        raise OvernightError(
            f"Ray stopped answering at {where} ({type(error).__name__}); run the same command again to go on from the "
            "last checkpoint"
        ) from error
    if FATAL in figures:
        raise OvernightError(f"{figures[FATAL]}; {kept_in(work.run)}")
    return figures


def threads_per_worker(
    plan: Plan | Workload,
    faults: FaultsConfig,
    nodes: Sequence[Mapping[str, float]],
    parameter: str = "plan.num_workers",
) -> int:
    """The most cores that each worker can have with all workers placed, or as many as there is room for.

    nodes   resources of each, as Ray counts them

    Raises ConfigError when the cluster has no room for them: Ray Train itself would wait for ever.
    """
    gpus = plan.device == "cuda"

    def room(threads: int) -> int:
        return int(sum(min(each.get("CPU", 0) // threads, each.get("GPU", 0) if gpus else 1e9) for each in nodes))

    least = faults.minimum_workers or plan.num_workers
    if room(1) < least:
        resources = ", ".join(
            f"{kind} {sum(each.get(kind, 0) for each in nodes):g}" for kind in (["CPU", "GPU"] if gpus else ["CPU"])
        )
        needed = f"{least} workers on {plan.device}, each with a core{' and a GPU' if gpus else ''}"
        cpu = ", plan.device to cpu" if gpus else ""
        raise ConfigError(
            f"the plan needs {needed}; Ray has {resources} on {len(nodes)} nodes, room for {room(1)}; set "
            f"{parameter}{cpu}, or RAY_ADDRESS to a larger cluster"
        )
    wanted = min(plan.num_workers, room(1))
    most = int(max(each.get("CPU", 0) for each in nodes))
    return next(threads for threads in range(most, 0, -1) if room(threads) >= wanted)


def kept_in(run: Path) -> str:
    """Where a run that has ended can go on from, in words."""
    if any(run.glob("step-*/checkpoint.json")):
        return f"the last good checkpoint is kept in {run}"
    return "there was no checkpoint yet"


def cause_of(error: BaseException) -> str:
    """What happened to a worker, or to the controller, in one line."""
    text = str(error).strip()
    if micro_batch.RAY_SAYS in text:
        return "Ray killed its process, for its node ran low on memory"
    if "worker process has died" in text:
        return DIED
    if silent := re.search(r"health check has been hanging for ([\d.]+)", text):
        return f"it has not answered for {float(silent[1]):.0f} s"
    lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    named = [line for line in lines if "Error" in line]
    return one_line((named or lines)[-1], 300)


def _trainer(work: Workload, loop: Callable[[str], dict[str, Any]], settings: Settings, stage: str) -> RayTrainer:
    faults = work.faults
    absolute_settings = settings.model_copy(update={"state": settings.state.resolve()})
    return RayTrainer(
        loop,
        train_loop_config=work.model_dump_json(),
        backend_config=SharedDevicesConfig(),
        scaling_config=ScalingConfig(
            num_workers=(faults.minimum_workers, work.num_workers) if faults.minimum_workers else work.num_workers,
            elastic_resize_monitor_interval_s=faults.resize_seconds,
            use_gpu=work.device == "cuda",
            resources_per_worker={"CPU": work.threads} | ({"GPU": 1} if work.device == "cuda" else {}),
        ),
        run_config=RunConfig(
            # Ray would restore a run of the same name and place; ours are restored by their content.
            name=uuid.uuid4().hex,
            storage_path=str(work.run / "ray"),
            failure_config=FailureConfig(
                max_failures=faults.max_failures, controller_failure_limit=faults.max_failures
            ),
            callbacks=[
                Tell(stage, absolute_settings, faults.max_failures),
                Shortage(stage, absolute_settings, work.run, work.micro_batch_samples),
            ],
            worker_runtime_env={"env_vars": cores.waiting(work.num_workers, work.device)},
        ),
    )


def _while_ray_answers(trainer: RayTrainer) -> dict[str, Any]:
    """What the trainer's worker 0 returned. Raises OvernightError when Ray's control store is gone."""
    done: Future[dict[str, Any]] = Future()

    def fit() -> None:
        try:
            done.set_result(dict(trainer.fit().return_value))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=fit, daemon=True, name="ray train").start()
    missed = 0
    while missed < PULSES_MISSED:
        until = time.monotonic() + PULSE_SECONDS
        while time.monotonic() < until:
            if done.done():
                return done.result()
            time.sleep(0.05)
        missed = 0 if cluster.answers() else missed + 1
    raise OvernightError(
        f"Ray stopped answering at {cluster.joined_at()}; run the same command again to go on from the checkpoint"
    )
