"""Programs that try to get out: each reaches its last line where it succeeds, and only there.

The sandbox is believed only after all of them have failed in it (`isolation`). `{file}` is a file of the host that its
owner reads, `{keys}` are files beside what programs may see, `{port}` is a listening port of the host, `{pid}` a
process of it, `{library}` the folder of the standard library, `{environment}` what programs are told.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from components.execution.runner import environment

ESCAPES = {
    "read a file of the host": "assert open({file!r}).read()",
    "read passwords": "assert open('/etc/shadow').read()",
    "read through a link": "import os\nos.symlink({file!r}, 'link')\nassert open('link').read()",
    "reach a port of the host": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
    "find a key of the user": "import os\nassert any(map(os.path.exists, {keys!r}))",
    "read the environment": "import os\nassert set(os.environ) - set({environment!r})",
    "see a process of the host": "import os\nos.kill({pid}, 0)\nassert open('/proc/{pid}/cmdline').read()",
    "signal a process of the host": "import os\nos.kill({pid}, 0)",
    "trace a process": (
        "import ctypes, os, time\nchild = os.fork()\n"
        "if child == 0:\n time.sleep(0.5)\n os._exit(0)\n"
        "found = ctypes.CDLL(None).ptrace(16, child, 0, 0)\nos.kill(child, 9)\nos.waitpid(child, 0)\n"
        "assert found == 0"
    ),
    "write to the host": "open({file!r}, 'r+').write('secret')",
    "change a library": "open({library!r} + '/planted.py', 'w').close()",
    "take another uid": "import os\nos.setuid(12345)",
    "mount": "import ctypes\nassert ctypes.CDLL(None).mount(b't', b'/mnt', b'tmpfs', 0, None) == 0",
    "make a user namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "outlive in shared memory": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nfound = libc.shmget(0, 4096, 0o1600)\nassert found >= 0\n"
        "libc.shmctl(found, 0, None)"
    ),
    "run a file of memory": (
        "import os\nfile = os.memfd_create('program')\nos.write(file, open('/bin/true', 'rb').read())\n"
        "child = os.fork()\nif child == 0:\n os.execve(file, ['true'], {{}})\nassert os.waitpid(child, 0)[1] == 0"
    ),
    "reach a hypervisor": "import socket\nsocket.socket(socket.AF_VSOCK)",
}


def filled(file: str, keys: Sequence[str], port: int, pid: int, library: str) -> dict[str, str]:
    """Every escape with what it looks for."""
    known = list(environment())
    names = {"file": file, "keys": list(keys), "port": port, "pid": pid, "library": library, "environment": known}
    return {name: source.format(**names) for name, source in ESCAPES.items()}


def all_at_once(file: str, keys: Sequence[str], port: int, pid: int) -> str:
    """One program that tries every escape and fails, naming them, when one succeeded."""
    probes = filled(file, keys, port, pid, library=str(Path(os.__file__).parent))
    return (
        f"escaped = []\nfor name, source in {probes!r}.items():\n"
        "    try:\n        exec(source, {})\n    except Exception:\n        continue\n    escaped.append(name)\n"
        "assert not escaped, ', '.join(escaped)\n"
    )
