"""A replica that cannot keep its port closed does not start. That none is open: tests/test_cycle.py, on a real one."""

import sys
from types import ModuleType

import pytest

from components.serving.replicas import replica_ports


def test_a_serve_that_binds_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(replica_ports.REPLICA)
    monkeypatch.setitem(sys.modules, replica_ports.REPLICA, module)
    with pytest.raises(RuntimeError, match="has no add_port_to_grpc_server: find where this Ray Serve opens"):
        replica_ports.open_none()
    module.add_port_to_grpc_server = object()  # type: ignore[attr-defined]
    replica_ports.open_none()
    assert module.add_port_to_grpc_server(None, "[::]:0") == 0  # type: ignore[attr-defined]


def test_ray_serve_binds_as_we_know() -> None:
    from ray.serve._private import replica  # noqa: PLC0415 - only this test needs it

    assert hasattr(replica, replica_ports.BIND)
