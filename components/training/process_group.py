"""Workers of one run find each other. Imports torch and Ray."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch

from components.training.trainer import World


@contextmanager
def joined(world: World, share: Callable[[Any], Any]) -> Iterator[None]:
    """A process group for the length of a block; nothing to do for a single worker.

    share   worker 0's small value on every worker
    """
    if world.size == 1:
        yield
        return
    place = share(f"tcp://{ray.util.get_node_ip_address()}:{_free_port()}" if world.rank == 0 else None)
    backend = "gloo" if world.device == "cpu" else "nccl"
    torch.distributed.init_process_group(backend, init_method=place, rank=world.rank, world_size=world.size)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
