"""Keep what tools start to this machine and this user: Ray on loopback addresses, with a key that every caller shows;
caches that programs trust in the state folder, where each tool's default is a folder that any user may make first.

They decide when they are imported, hence from the environment. A Ray cluster that was configured is left as it is.
"""

import os

from components.core.config import read_settings
from components.core.errors import ConfigError

LOCAL_RAY = {
    # Named for the platforms where Ray does this by default: no address but loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}


# Below the state folder. DVC believes what its cache says of files (/var/tmp/dvc); torch.compile loads the machine code
# that lies there (/tmp/torchinductor_USER).
CACHES = {"DVC_SITE_CACHE_DIR": "dvc", "TORCHINDUCTOR_CACHE_DIR": "inductor"}


def keep_local() -> None:
    """Set what tools read, in this process and those that it starts; what a person has set stays."""
    try:
        settings = read_settings()
    except ConfigError:
        return  # told by the command itself, as one line
    state = settings.state.resolve()
    values = {name: str(state / folder) for name, folder in CACHES.items()}
    if settings.ray_address is None:
        values |= LOCAL_RAY
    for name, value in values.items():
        os.environ.setdefault(name, value)
