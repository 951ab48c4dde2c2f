"""Keep the local Ray to this machine: loopback addresses, and a token that every caller must show.

Ray decides both when it is imported, hence from the environment. A cluster that was configured is left as it is.
"""

import os

from components.core.config import read_settings
from components.core.errors import ConfigError

LOCAL_RAY = {
    # Named for the platforms where Ray does this by default: no address but loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}


def keep_ray_local() -> None:
    """Set what Ray reads, in this process and those that it starts, unless a cluster is configured."""
    try:
        configured = read_settings().ray_address
    except ConfigError:
        return  # told by the command itself, as one line
    if configured is None:
        for name, value in LOCAL_RAY.items():
            os.environ.setdefault(name, value)
