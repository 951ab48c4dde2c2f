"""Workers of one run find each other, tell each other why they end, and see that they share the run's files.

Imports torch and Ray.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # documented, not in __all__

from components.core.artifact import write_file
from components.training.engine.devices.parallel import World
from components.training.run.worker_input import EndOfRunError

END, HEARD, NAME, SEEN, READ = "end", "heard", "name", "seen/", "read"
# How long worker 0, whose memory holds what the workers tell each other, waits for the others to read it.
PATIENCE_SECONDS = 10.0
# A silent worker is named by Ray Train's polls first; the others would only say that they waited for somebody.
EXCHANGE_SHARE = 1.25
# Workers import for seconds here and for minutes from a cold network disk, not all alike; one that died or was stopped
# meanwhile is found by Ray Train's polls.
JOINING = timedelta(minutes=10)
# A directory entry of one node is seen by another after this long at most, over NFS with its usual caching.
SHARED_SECONDS = 5.0


class Group:
    """What workers tell each other besides tensors. A lone worker has nobody to tell."""

    def __init__(self, store: TCPStore | None, world: World) -> None:
        self.store = store
        self.world = world

    def tell(self, reason: str) -> None:
        """Say why this worker ends the run: the others, waiting for it in an exchange, fail and ask."""
        if self.store is None:
            return
        with suppress(DistError, RuntimeError):
            self.store.set(END, reason)
            self.store.add(HEARD, 1)

    def reason(self) -> str | None:
        """Why another worker ended the run; None when none did, or when worker 0 is gone."""
        if self.store is None:
            return None
        with suppress(DistError, RuntimeError):
            if self.store.check([END]):
                return str(self.store.get(END).decode())
        return None

    def leave(self) -> None:
        """Let the others hear what was told before worker 0's process forgets it."""
        if self.reason() is not None:
            self.wait_for_all(HEARD)

    def wait_for_all(self, count: str) -> None:
        """Keep worker 0, whose process holds the store, until every worker has added itself to a count."""
        until = time.monotonic() + PATIENCE_SECONDS
        if self.store is not None and self.world.rank == 0:
            while self.store.add(count, 0) < self.world.size and time.monotonic() < until:
                time.sleep(0.05)


@contextmanager
def joined(world: World, share: Callable[[Any], Any], hang_seconds: float) -> Iterator[Group]:
    """A process group for the length of a block; nothing to join for a single worker.

    share           worker 0's small value on every worker
    hang_seconds    an exchange that takes longer, by a quarter, raises on all workers
    """
    if world.size == 1:
        yield Group(None, world)
        return
    address, patience = ray.util.get_node_ip_address(), timedelta(seconds=EXCHANGE_SHARE * hang_seconds)
    use_interface_of(address)
    listener = listen(address) if world.rank == 0 else None
    host, port = share(listener.getsockname()[:2] if listener else None)
    store = open_store(host, port, world.size, listener, max(patience, JOINING))
    backend = "gloo" if world.device == "cpu" else "nccl"
    torch.distributed.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=patience)
    group = Group(store, world)
    try:
        yield group
    finally:
        torch.distributed.destroy_process_group()
        group.leave()


def check_shared(run: Path, group: Group) -> None:
    """Raise EndOfRunError on every worker when one of them does not see what worker 0 writes in the run's directory."""
    store, world = group.store, group.world
    if store is None:
        return
    if world.rank == 0:
        name = f"seen-{uuid.uuid4().hex}"
        write_file(run / name, b"")
        store.set(NAME, name)
    path = run / store.get(NAME).decode()
    until = time.monotonic() + SHARED_SECONDS
    while not (seen := path.exists()) and time.monotonic() < until:
        time.sleep(0.1)
    store.set(f"{SEEN}{world.rank}", "" if seen else socket.gethostname())
    # Waits for every worker, so that the file may go.
    hosts = [store.get(f"{SEEN}{rank}").decode() for rank in range(world.size)]
    with suppress(DistError, RuntimeError):  # counted, and worker 0 was gone before it could say so
        store.add(READ, 1)
    group.wait_for_all(READ)
    if world.rank == 0:
        path.unlink()
    if any(hosts):
        blind = ", ".join(f"worker {rank} on {host}" for rank, host in enumerate(hosts) if host)
        raise EndOfRunError(
            f"{blind} does not see {run}, where worker 0 writes; put OVERNIGHT_STATE and the data on storage that all "
            "nodes mount at the same place"
        )


def use_interface_of(address: str) -> None:
    """Let gloo and NCCL use the network of this node's address. By default gloo takes what the host's name resolves
    to, often a loopback address that no other node reaches."""
    loopback = address.startswith("127.")
    for name, addresses in psutil.net_if_addrs().items():
        here = {each.address for each in addresses}
        if address in here or (loopback and "127.0.0.1" in here):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def listen(address: str) -> socket.socket:
    """A socket that listens on one address of this node, on a port that was free."""
    return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


def open_store(host: str, port: int, size: int, listener: socket.socket | None, timeout: timedelta) -> TCPStore:
    """What workers tell each other through. The worker with the listener holds it, and listens nowhere else: by itself
    torch listens on all interfaces."""
    descriptor = None if listener is None else listener.detach()
    return TCPStore(host, port, size, is_master=listener is not None, timeout=timeout, master_listen_fd=descriptor)
