"""What workers tell each other besides tensors: two of them, as threads with a store of their own each."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, not in __all__

from components.training.engine.devices.parallel import World
from components.training.run.process_group import Group, check_shared, listen, open_store, use_interface_of
from components.training.run.worker_input import EndOfRunError


def both(act: Callable[[Group], Any]) -> list[Any]:
    """What an act gives on worker 0 and on worker 1, at the same time; an EndOfRunError is given as it is."""
    listener = listen("127.0.0.1")
    host, port = listener.getsockname()

    def one(rank: int) -> Any:
        store = open_store(host, port, 2, None if rank else listener, timedelta(seconds=60))
        try:
            return act(Group(store, World(rank=rank, size=2)))
        except EndOfRunError as error:
            return error

    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(one, range(2)))


def test_workers_that_see_each_others_files_go_on(tmp_path: Path) -> None:
    assert both(lambda group: check_shared(tmp_path, group)) == [None, None]
    assert not list(tmp_path.iterdir())


def test_the_store_listens_on_the_nodes_address_alone() -> None:
    """torch would listen on all interfaces, for anybody."""

    def addresses(group: Group) -> set[str]:
        return {each.laddr.ip for each in psutil.Process().net_connections("tcp") if each.status == psutil.CONN_LISTEN}

    assert both(addresses)[0] <= {"127.0.0.1", "::ffff:127.0.0.1"}


class SlowStore:
    """A store whose answers to worker 1 take a while: what worker 0 does meanwhile must not take them away."""

    def __init__(self, store: TCPStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        time.sleep(0.3)
        return getattr(self._store, name)


def test_worker_0_keeps_what_a_slow_worker_has_still_to_read(tmp_path: Path) -> None:
    def act(group: Group) -> None:
        if group.world.rank == 1 and group.store is not None:
            group.store = SlowStore(group.store)  # type: ignore[assignment]
        check_shared(tmp_path, group)

    assert both(act) == [None, None]


def test_a_worker_without_the_runs_files_ends_the_run_on_all(tmp_path: Path) -> None:
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
    errors = both(lambda group: check_shared(tmp_path / str(group.world.rank), group))
    assert all(isinstance(each, EndOfRunError) for each in errors)
    assert all("worker 1 on" in str(each) and "worker 0 on" not in str(each) for each in errors)
    assert "does not see" in str(errors[0])
    assert "storage that all nodes mount at the same place" in str(errors[0])


def test_why_a_worker_ends_is_heard_before_worker_0_forgets_it() -> None:
    def act(group: Group) -> str | None:
        if group.world.rank == 0:  # as the one whose disk is full
            group.tell("the disk is full")
            group.leave()
            return None
        time.sleep(0.5)  # as in an exchange that fails at last
        reason = group.reason()
        assert reason is not None
        group.tell(reason)
        return reason

    assert both(act) == [None, "the disk is full"]


def test_a_lone_worker_has_nobody_to_tell(tmp_path: Path) -> None:
    group = Group(None, World())
    group.tell("nothing")
    assert group.reason() is None
    group.leave()
    check_shared(tmp_path / "absent", group)


def test_the_interface_of_the_nodes_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    use_interface_of("127.0.0.1")

    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == "lo"
