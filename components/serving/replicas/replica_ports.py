"""Replicas of Ray Serve that listen on no port of their own. Imports no Ray: it finds it where it is loaded.

Ray Serve starts a gRPC server in every replica, on all interfaces of the machine, that unpickles what any caller sends:
who reaches its port runs code as this user. No setting leaves it out. Nothing here calls it: handles go through Ray's
own channels, which ask for the cluster's token.
"""

import sys
from typing import Any

REPLICA, BIND = "ray.serve._private.replica", "add_port_to_grpc_server"


def open_none() -> None:
    """Keep the replica that runs in this process from opening its port; its constructor calls this, before Serve would.

    Raises RuntimeError where Ray Serve no longer binds as this version does: better no replica than an open one.
    """
    replica = sys.modules.get(REPLICA)
    if replica is None:
        return  # no replica: a test, or a tool that serves from its own process
    if not hasattr(replica, BIND):
        raise RuntimeError(f"{REPLICA} has no {BIND}: find where this Ray Serve opens the port of a replica")
    setattr(replica, BIND, _bind_nothing)


def _bind_nothing(_server: Any, _address: str) -> int:
    return 0
