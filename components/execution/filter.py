"""A system-call filter for candidates, in the kernel's classic BPF: what no program of a suite needs is refused.

It stands behind namespaces and dropped privileges: fewer doors to the kernel, and those that no namespace covers (keys,
vsock, System V memory that outlives a program, performance counters). Refused with EPERM, so that programs see an
ordinary error; another architecture's calls kill. clone3 is unknown to it (ENOSYS), so that libc uses clone, whose
flags can be read. Source of the format: linux/filter.h, seccomp(2).
Covers: x86_64 and aarch64 (numbers of asm-generic/unistd.h; not run on such a machine yet). Elsewhere there is none.
"""

import errno
import platform
import struct

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag
_UNIX, _INET, _INET6 = 1, 2, 10
_X32 = 0x40000000

# Architecture, numbers of socket, clone and clone3, and what is refused whatever its arguments are.
_CALLS: dict[str, tuple[int, int, int, int, str]] = {
    "x86_64": (
        *(0xC000003E, 41, 56, 435),
        "29 30 31 64 65 66 68 69 70 71 "  # System V memory, semaphores, queues
        "101 310 311 312 103 135 "  # ptrace, process_vm_readv, process_vm_writev, kcmp, syslog, personality
        "155 161 165 166 167 168 272 308 303 304 "  # pivot_root, chroot, mount, swap, unshare, setns, file handles
        "163 164 169 170 171 172 173 179 227 "  # acct, time, reboot, names, I/O ports, quota
        "175 176 313 246 320 240 248 249 250 298 321 323 "  # modules, kexec, mq_open, keys, perf, BPF, userfaultfd
        "319",  # memfd_create: such memory counts for no limit of a process, and is run although /box is not
    ),
    "aarch64": (
        *(0xC00000B7, 198, 220, 435),
        "190 191 192 193 194 195 196 186 187 188 189 117 270 271 272 116 92 41 51 40 39 224 225 97 268 264 265 "
        "89 170 142 161 162 60 112 105 106 273 104 294 180 217 218 219 241 280 282 279",
    ),
}
_SAME_EVERYWHERE = (
    "425 426 427 428 429 430 431 432 433 438 440 442 447"  # io_uring, new mount calls, pidfd_getfd, memfd_secret
)


def system_call_filter() -> bytes:
    """The filter's instructions (struct sock_filter) for this machine; empty where its calls are not known."""
    if platform.machine() not in _CALLS:
        return b""
    architecture, socket, clone, clone3, refused = _CALLS[platform.machine()]
    refuse = _ERROR | errno.EPERM
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, _KILL),
    ]
    for number in map(int, f"{refused} {_SAME_EVERYWHERE}".split()):
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, refuse)]
    code += [
        _step(_EQUAL, clone3, 0, 1),
        _step(_RETURN, _ERROR | errno.ENOSYS),
        _step(_EQUAL, clone, 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_ANY_BIT, _NAMESPACES, 0, 1),
        _step(_RETURN, refuse),
        _step(_RETURN, _ALLOW),
        _step(_EQUAL, socket, 1, 0),
        _step(_RETURN, _ALLOW),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_EQUAL, _UNIX, 2, 0),
        _step(_EQUAL, _INET, 1, 0),
        _step(_EQUAL, _INET6, 0, 1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, refuse),
    ]
    return b"".join(code)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; the jumps count instructions from the next."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
