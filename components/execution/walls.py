"""The walls of the jail (jail.py), as calls of the kernel: namespaces, mounts, limits, privileges given up for good.

Loaded by a bare interpreter that knows none of our packages, so it imports nothing but the standard library.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import signal
import socket
import struct
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
KEPT_FLAGS = MS_NOSUID | MS_NODEV | 8 | 1024 | 2048 | (1 << 21)  # an inner user namespace may not clear these
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 4, 22, 24, 36
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
BOX = "/box"  # a program's file system: its own file, which it may not change, its users, and two folders to write to
WORK, SHARED_MEMORY = f"{BOX}/work", f"{BOX}/shm"
PROGRAM = f"{BOX}/program.py"
# Links of the jail's root into the box; /dev/shm is where multiprocessing keeps its locks.
LINKS = {
    "/tmp": WORK,
    "/etc/passwd": f"{BOX}/passwd",
    "/etc/group": f"{BOX}/group",
}
DEVICE_LINKS = {
    "/dev/shm": SHARED_MEMORY,
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
PACKAGES = "/packages"  # what of the environment's packages programs may import
HOST_PROCESSES = "/.proc"  # a process file system may be mounted only where another is seen; gone when programs run
DESCRIPTORS = 256

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """A libc function whose negative result becomes an OSError that names it."""
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def enter_namespaces(root: str, view: dict[str, Any], *, as_user: bool) -> None:
    """Leave the host's files and network behind: a read-only root with what `view` shows, a few devices and /box.

    `root` is an empty directory to build it in. `as_user` first enters a user namespace, which is how somebody without
    privileges may do the rest.
    """
    uid, gid = os.getuid(), os.getgid()
    spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET
    call("unshare", spaces | (CLONE_NEWUSER if as_user else 0))
    if as_user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        for name in ("max_inotify_instances", "max_inotify_watches"):  # all jails of a user share the user's own
            with contextlib.suppress(OSError):
                Path("/proc/sys/user", name).write_text("16")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    _build(root, view)
    for path in (BOX, "/proc", HOST_PROCESSES):
        Path(root + path).mkdir()
    mount("/proc", root + HOST_PROCESSES, None, MS_BIND | MS_REC)
    mount("none", root, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    _open_loopback()
    os.chdir(root)
    call("syscall", PIVOT_ROOT[platform.machine()], b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def _build(root: str, view: dict[str, Any]) -> None:
    """Fill the new root: what is shown, what is hidden of it, devices, links and texts (toolchains.View)."""
    for path in view["system"]:
        _show(path, root + path)
    for path in view["hidden"]:
        mount("tmpfs", root + path, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    for target, source in view["private"].items():
        _show(source, root + target)
    for path in view["hidden_within"]:
        mount("tmpfs", root + path, "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "size=4k,mode=755")
    for path in view["hidden"]:
        mount("none", root + path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    for name in ("null", "zero", "full", "urandom", "random"):
        Path(f"{root}/dev").mkdir(exist_ok=True)
        Path(f"{root}/dev/{name}").touch()
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    for path, text in view["texts"].items():
        Path(root + path).parent.mkdir(parents=True, exist_ok=True)
        Path(root + path).write_text(text)
    for path, target in {**view["links"], **DEVICE_LINKS}.items():
        Path(root + path).parent.mkdir(parents=True, exist_ok=True)
        Path(root + path).symlink_to(target)


def _open_loopback() -> None:
    """Let programs reach themselves on 127.0.0.1, and leave no port taken for the next one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    with contextlib.suppress(OSError):  # a container may keep its settings read-only
        Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text("0")


def _show(source: str, target: str) -> None:
    """Show a directory or a file of the host at `target`, read-only."""
    if Path(source).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    mount(source, target, None, MS_BIND | MS_REC)
    kept = os.statvfs(source).f_flag & KEPT_FLAGS
    mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def enter_session() -> None:
    """Let the next child be process 1 of a namespace of its own, and mount for nobody else."""
    call("unshare", CLONE_NEWNS | CLONE_NEWPID)


def open_box(file_bytes: int, *, runs_files: bool) -> None:
    """Mount an empty box and the processes of this namespace, and let go of the host's."""
    flags = MS_NOSUID | MS_NODEV | (0 if runs_files else MS_NOEXEC)
    mount("tmpfs", BOX, "tmpfs", flags, f"size={file_bytes},nr_inodes=8192,mode=755")
    mount("proc", "/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    call("umount2", HOST_PROCESSES.encode(), MNT_DETACH)


def limit(request: dict[str, Any]) -> None:
    """Resource limits of the candidate and of everything that it starts.

    Runtimes of other languages reserve address space by the gigabyte: theirs is limited where it may be written.
    """
    limits = {
        resource.RLIMIT_CPU: int(request["timeout_seconds"] * 1.5) + 2,  # the watcher is there before
        resource.RLIMIT_AS if "source" in request else resource.RLIMIT_DATA: request["memory_bytes"],
        resource.RLIMIT_FSIZE: request["file_bytes"],
        resource.RLIMIT_NPROC: request["processes"],
        resource.RLIMIT_NOFILE: DESCRIPTORS,
        resource.RLIMIT_CORE: 1,  # of 0 a host that pipes core dumps to a program takes no notice, see core(5)
        resource.RLIMIT_MEMLOCK: 0,
    }
    for name, wanted in limits.items():
        hard = resource.getrlimit(name)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(name, (value, value))


def drop_privileges(backend: str, uid: int, refused_calls: bytes) -> None:
    """Give up root, or the capabilities of the root of a user namespace, for good, and the system calls refused."""
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if backend == "user_namespaces":
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    elif os.getuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    die_with_parent()
    if refused_calls:
        code = ctypes.create_string_buffer(refused_calls, len(refused_calls))
        program = struct.pack("@HP", len(refused_calls) // 8, ctypes.addressof(code))  # struct sock_fprog
        call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0)
