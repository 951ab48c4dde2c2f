"""The inner half of the sandbox: a server that walls itself in and then runs one program after another.

Started only by components.execution.sandbox, with a bare interpreter; it imports nothing but the standard library.
Four processes: the server builds the walls once; for each program it forks a session, which makes a process namespace
and an empty /box; the session's child is process 1 there and watches; the watcher's child drops every privilege and
becomes the candidate. The watcher alone holds the pipe on which the end is reported. When it goes, the kernel kills
whatever is left in its namespace.
"""

import ctypes
import json
import os
import platform
import resource
import shutil
import signal
import socket
import sys
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
KEPT_FLAGS = MS_NOSUID | MS_NODEV | 8 | 1024 | 2048 | (1 << 21)  # an inner user namespace may not clear these
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
CAPABILITY_VERSION_3 = 0x20080522
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
FIRST_UID = 1_000_000  # plus the session's process id: no two running programs share a uid, so limits count one program
BOX = "/box"
DESCRIPTORS = 64

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


def enter_namespaces(root: str, *, as_user: bool) -> None:
    """Leave the host's files and network behind: a read-only root with the standard library, three devices and /box.

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
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    libraries = ["/usr/lib", "/lib", "/lib64", f"{sys.base_prefix}/lib"]
    for path in dict.fromkeys(os.path.realpath(each) for each in libraries):
        if Path(path).is_dir() and not Path(root + path).exists():
            _show(path, root + path)
    for path in libraries:
        if Path(path).is_symlink():
            Path(root + path).symlink_to(os.path.realpath(path))
    Path(root + "/dev").mkdir()
    for name in ("null", "zero", "urandom"):
        Path(f"{root}/dev/{name}").touch()
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    Path(root + BOX).mkdir()
    mount("none", root, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(root)
    call("syscall", PIVOT_ROOT[platform.machine()], b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def _show(source: str, target: str) -> None:
    """Show a directory of the host at `target`, read-only."""
    Path(target).mkdir(parents=True)
    mount(source, target, None, MS_BIND | MS_REC)
    kept = os.statvfs(source).f_flag & KEPT_FLAGS
    mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def limit(request: dict[str, Any], *, shares_uid: bool) -> None:
    """Resource limits of the candidate and of everything that it starts."""
    others = _tasks_of(os.getuid()) if shares_uid else 0
    limits = {
        resource.RLIMIT_CPU: int(request["timeout_seconds"]) + 1,
        resource.RLIMIT_AS: request["memory_bytes"],
        resource.RLIMIT_FSIZE: request["file_bytes"],
        resource.RLIMIT_NPROC: others + request["processes"],
        resource.RLIMIT_NOFILE: DESCRIPTORS,
        resource.RLIMIT_CORE: 0,
    }
    for name, wanted in limits.items():
        hard = resource.getrlimit(name)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(name, (value, value))


def _tasks_of(uid: int) -> int:
    """Threads that a uid runs on this machine: what RLIMIT_NPROC counts where there is no namespace and no own uid."""
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                total += sum(1 for _ in (entry / "task").iterdir())
        except OSError:  # it ended while we looked
            continue
    return total


def drop_privileges(backend: str, uid: int) -> None:
    """Give up root, or the capabilities of the root of a user namespace, for good."""
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if backend == "user_namespaces":
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    elif os.getuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become_candidate(request: dict[str, Any], output: int, verdict: int) -> NoReturn:
    """Run the program as __main__; write the nonce only when its last line has been executed."""
    for number, descriptor in enumerate((os.open("/dev/null", os.O_RDONLY), output, output, verdict)):
        os.dup2(descriptor, number)  # the pipes were made by the sandbox and received: all lie above 3
    os.closerange(4, DESCRIPTORS)
    for name in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT):
        signal.signal(name, signal.SIG_DFL)
    status = 1
    try:
        main = types.ModuleType("__main__")
        main.__dict__["__file__"] = "program.py"
        sys.modules["__main__"] = main
        exec(compile(request["source"], "program.py", "exec", dont_inherit=True), main.__dict__)
        sys.stdout.flush()
        os.write(3, request["nonce"].encode())
        status = 0
    except SystemExit:
        status = 0  # without the nonce: not passed
    except BaseException:
        sys.stdout.flush()
        traceback.print_exc(limit=-3)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def watch(request: dict[str, Any], output: int, verdict: int, report: int, uid: int) -> None:
    """Start the candidate, wait for its end or the time limit, and report which; leave the rest to the caller."""
    backend = request["backend"]
    candidate = os.fork()
    if candidate == 0:
        os.setsid()
        os.umask(0o077)
        limit(request, shares_uid=backend == "limits" and os.getuid() != 0)
        drop_privileges(backend, uid)
        become_candidate(request, output, verdict)
    ended = {"timed_out": False}

    def stop(number: int, frame: object) -> None:
        ended["timed_out"] = True
        os.kill(-1 if os.getpid() == 1 else candidate, signal.SIGKILL)  # process 1 of a namespace means all of it

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, request["timeout_seconds"])
    status, found = 0, 0
    while found != candidate:  # orphans of the candidate come to us as well
        found, status = os.waitpid(-1, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    content = {**ended, "code": os.waitstatus_to_exitcode(status), "left": _has_children()}
    os.write(report, json.dumps(content).encode())


def _has_children() -> bool:
    """Whether processes of the candidate still run, after reaping those that do not."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def hold_session(request: dict[str, Any], pipes: list[int]) -> None:
    """One program, in a process of its own: an empty directory, a process namespace where there is one, a watcher."""
    output, verdict, report = pipes
    uid = FIRST_UID + os.getpid()
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if request["backend"] == "limits":
        call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if os.getuid() == 0:
            os.chown(".", uid, uid)
        watch(request, output, verdict, report, uid)
        return
    call("unshare", CLONE_NEWNS | CLONE_NEWPID)
    mount("tmpfs", BOX, "tmpfs", MS_NOSUID | MS_NODEV, f"size={request['file_bytes']},nr_inodes=1024,mode=1777")
    os.chdir(BOX)
    watcher = os.fork()
    if watcher == 0:
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        watch(request, output, verdict, report, uid)
        os._exit(0)
    for descriptor in pipes:
        os.close(descriptor)
    os.waitpid(watcher, 0)


def serve(control: socket.socket, backend: str, root: str) -> None:
    """Answer requests until the other end closes: one message with four descriptors in, one byte out when all is gone.

    SIGTERM ends the program that runs, and the server goes on.
    """
    current: list[int] = []

    def stop(number: int, frame: object) -> None:
        for session in current:
            os.kill(session, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not message:
            return
        with os.fdopen(descriptors[0], "rb") as file:
            request = json.loads(file.read())
        if backend == "limits":
            Path(root, "box").mkdir()
            os.chdir(Path(root, "box"))
        session = os.fork()
        if session == 0:
            control.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            hold_session({**request, "backend": backend}, descriptors[1:])
            os._exit(0)
        current.append(session)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        os.waitpid(session, 0)
        current.clear()
        _await_emptiness(kill=backend == "limits")
        if backend == "limits":
            os.chdir(root)
            shutil.rmtree(Path(root, "box"))
        control.send(b".")


def _await_emptiness(*, kill: bool) -> None:
    """Reap every process that came to us when its session ended; where no namespace kills them, `kill` them first."""
    while _has_children():
        if kill:
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        os.waitpid(-1, 0)


def main() -> None:
    """Build the walls of the backend named, say whether they stand, and serve."""
    backend, root, descriptor = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with socket.socket(fileno=descriptor) as control:
        try:
            call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            if backend != "limits":
                enter_namespaces(root, as_user=backend == "user_namespaces")
            call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # a candidate of the same uid may not trace us
        except (OSError, KeyError) as error:
            control.send(f"refused: {error}".encode())
            return
        control.send(b"ready")
        sys.argv = ["program.py"]
        os.environ.clear()
        serve(control, backend, root)


if __name__ == "__main__":
    main()
