"""What a process asks of the kernel for itself."""

import ctypes
import signal
import sys


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however that ends (Linux; elsewhere nothing happens).

    Without it a SIGKILLed cycle would leave a stage that trains on, beside the one that the next command starts.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
