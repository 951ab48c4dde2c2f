"""The inner half of the sandbox: a server that walls itself in and then runs one program after another.

Started only by components.execution.runner, with a bare interpreter; it imports nothing but the standard library.
Four processes: the server builds the walls once; for each program it forks a session, which makes a process namespace
and an empty /box; the session's child is process 1 there and watches; the watcher's child drops every privilege and
becomes the candidate: Python in this very interpreter, which is warm; other languages' compiler and then their program.
The watcher alone holds the pipe on which the end is reported. When it goes, the kernel kills whatever is left in its
namespace. In bubblewrap the walls stand already, for one program only, and the server itself is the watcher.

What ordinary programs expect of a machine is there: /proc of their own processes, /dev/shm, /tmp, loopback, a user, an
environment, their own file. /tmp and /dev/shm are folders of one file system in memory, which goes with the program.
"""

import _sitebuiltins
import atexit
import builtins
import contextlib
import ctypes
import fcntl
import gc
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

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
FIRST_UID = 1_000_000  # plus the session's process id: no two running programs share a uid, so limits count one program
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
NOBODY = 65534
TICKS = os.sysconf("SC_CLK_TCK")
STARVED_FACTOR = 10  # a program that others keep from running may take this many times its limit
LEFT_SECONDS = 2.0  # processes that end by themselves after the program, as multiprocessing's tracker, have this long
ANY_OOM_SCORE = "500"  # where memory is short, the kernel ends candidates before whoever judges them

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
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if refused_calls:
        code = ctypes.create_string_buffer(refused_calls, len(refused_calls))
        program = struct.pack("@HP", len(refused_calls) // 8, ctypes.addressof(code))  # struct sock_fprog
        call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0)


def redirect(output: int, verdict: int) -> None:
    """Leave the candidate four descriptors: nothing to read, one pipe for both of its streams, the verdict's pipe."""
    for number, descriptor in enumerate((os.open("/dev/null", os.O_RDONLY), output, output, verdict)):
        os.dup2(descriptor, number)  # the pipes were made by the runner and received: all lie above 3
    os.closerange(4, DESCRIPTORS)


def become_command(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Become a compiler or a compiled or interpreted program, with an environment that says nothing of the host."""
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # it looks in this PATH
    except OSError as error:
        os.write(2, f"{command[0]}: {error}\n".encode())
        os._exit(127)


def become_candidate(request: dict[str, Any]) -> NoReturn:
    """Run the program as __main__, and write the nonce only when its last line has been executed.

    It then ends as Python does: threads are waited for, and what was registered for the end runs, so that pools end
    their workers.
    """
    for name in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(name, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, WORK)
    process, status = os.getpid(), 1
    try:
        main = types.ModuleType("__main__")
        main.__dict__["__file__"] = PROGRAM
        sys.modules["__main__"] = main
        exec(compile(request["source"], PROGRAM, "exec", dont_inherit=True), main.__dict__)
        sys.stdout.flush()
        os.write(3, request["nonce"].encode())
        status = 0
        if os.getpid() == process:  # a process that was forked off has its parent's threads and list
            if "threading" in sys.modules:  # not imported here: every program would pay for it
                sys.modules["threading"]._shutdown()
            atexit._run_exitfuncs()
    except SystemExit as error:  # without the nonce: not passed
        status = _exit_code(error.code)
    except BaseException as error:
        sys.stdout.flush()
        ours = error.__traceback__
        traceback.print_exception(error.with_traceback(ours and ours.tb_next), limit=-3)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _exit_code(code: object) -> int:
    """The exit code that Python makes of sys.exit's argument; words go to standard error."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def watch(request: dict[str, Any], output: int, verdict: int, report: int, uid: int) -> None:
    """Run the candidate's steps, each to its end or its time limit, and report; leave the rest to the caller."""
    nothing = os.open("/dev/null", os.O_WRONLY)
    _furnish(request, uid)
    content: dict[str, Any] = {}
    if request.get("compile"):
        compiling = {**request, "run": request["compile"], "timeout_seconds": request["compile_seconds"]}
        content = {**_step(compiling, output, nothing, uid), "compiled": False}
        if _has_children():
            os.kill(-1, signal.SIGKILL)
    if not content.get("code"):
        content = _step(request, output, verdict, uid)
    os.write(report, json.dumps({**content, "left": _leaves_children()}).encode())


def _furnish(request: dict[str, Any], uid: int) -> None:
    """Put the program's file, its users and its folders into the empty box, and go to the folder that it works in."""
    for folder in (WORK, SHARED_MEMORY):
        Path(folder).mkdir()
        Path(folder).chmod(0o1777)
    uid = uid if request["backend"] == "namespaces" else os.getuid()
    name = "root" if uid == 0 else "user"
    others = "" if uid in (0, NOBODY) else f"nobody:x:{NOBODY}:{NOBODY}:nobody:/:/bin/false\n"
    Path(BOX, "passwd").write_text(f"{name}:x:{uid}:{uid}:{name}:{WORK}:/bin/sh\n{others}")
    Path(BOX, "group").write_text(f"{name}:x:{uid}:\n")
    if "source" in request:
        Path(PROGRAM).write_text(request["shown_source"], encoding="utf-8", errors="surrogatepass")
    os.chdir(WORK)
    for file, text in request.get("files", {}).items():
        Path(file).write_text(text, encoding="utf-8", errors="surrogatepass")


def _step(request: dict[str, Any], output: int, verdict: int, uid: int) -> dict[str, Any]:
    """Start one process of the candidate and wait for it: whether its time was up, and its exit code."""
    limit_seconds, timed_out = request["timeout_seconds"], False
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    candidate = os.fork()
    if candidate == 0:
        os.setsid()
        os.umask(0o022)
        redirect(output, verdict)
        limit(request)
        drop_privileges(request["backend"], uid, bytes.fromhex(request["refused_calls"]))
        if "source" in request:
            become_candidate(request)
        become_command(request["run"], request["environment"])

    def check(number: int, frame: object) -> None:
        nonlocal timed_out
        elapsed = time.monotonic() - started
        ran, waited = _times()
        ran -= before.ru_utime + before.ru_stime
        if ran >= limit_seconds or elapsed >= limit_seconds * STARVED_FACTOR or elapsed - waited >= limit_seconds:
            timed_out = True
            os.kill(-1, signal.SIGKILL)  # all of the namespace but its first process and us

    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, limit_seconds / 4, limit_seconds / 4)
    status, ended = 0, 0
    while ended != candidate:  # orphans of the candidate come to us as well
        ended, status = os.waitpid(-1, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return {"timed_out": timed_out, "code": os.waitstatus_to_exitcode(status)}


def _times() -> tuple[float, float]:
    """Seconds that all processes of the candidate have run, and that their threads were ready and had no processor.

    The second keeps a program's verdict from its neighbours: what others take of the processors is not its time.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran, waited = ended.ru_utime + ended.ru_stime, 0.0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) in (1, os.getpid()):
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
            ran += sum(map(int, fields[11:15])) / TICKS  # its own, and those of its children that have ended
            for thread in (process / "task").iterdir():
                waited += int((thread / "schedstat").read_text().split()[1]) / 1e9
    return ran, waited


def _leaves_children() -> bool:
    """Whether processes of the candidate go on after it, although they could run and so end."""
    started = time.monotonic()
    while _has_children():
        elapsed, (_, waited) = time.monotonic() - started, _times()
        if elapsed - waited > LEFT_SECONDS or elapsed > LEFT_SECONDS * STARVED_FACTOR:
            return True
        time.sleep(0.005)
    return False


def _has_children() -> bool:
    """Whether processes of the candidate still run, after reaping those that do not."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def hold_session(request: dict[str, Any], pipes: list[int]) -> None:
    """One program, in a process of its own: a process namespace, an empty directory, a watcher."""
    output, verdict, report = pipes
    uid = FIRST_UID + os.getpid()
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("unshare", CLONE_NEWNS | CLONE_NEWPID)
    watcher = os.fork()
    if watcher == 0:
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        runs_files = 0 if "files" in request else MS_NOEXEC
        size = f"size={request['file_bytes']},nr_inodes=8192,mode=755"
        mount("tmpfs", BOX, "tmpfs", MS_NOSUID | MS_NODEV | runs_files, size)
        mount("proc", "/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        call("umount2", HOST_PROCESSES.encode(), MNT_DETACH)
        watch(request, output, verdict, report, uid)
        os._exit(0)
    for descriptor in pipes:
        os.close(descriptor)
    os.waitpid(watcher, 0)


def serve(control: socket.socket, backend: str, settings: dict[str, Any]) -> None:
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
            request = {**json.loads(file.read()), **settings, "backend": backend}
        if backend == "bubblewrap":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            output, verdict, report = descriptors[1:]
            watch(request, output, verdict, report, os.getuid())
            return
        session = os.fork()
        if session == 0:
            control.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            hold_session(request, descriptors[1:])
            os._exit(0)
        current.append(session)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        os.waitpid(session, 0)
        current.clear()
        while _has_children():  # what came to us when the session ended: the kernel has killed it
            os.waitpid(-1, 0)
        control.send(b".")


def main() -> None:
    """Build the walls of the backend named, say whether they stand, and serve. Settings: view, environment,
    refused_calls."""
    backend, root, descriptor, settings = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    with socket.socket(fileno=descriptor) as control:
        try:
            call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(ANY_OOM_SCORE)
            if backend != "bubblewrap":
                enter_namespaces(root, settings["view"], as_user=backend == "user_namespaces")
                socket.sethostname("box")
            call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # a candidate of the same uid may not trace us
        except (OSError, KeyError) as error:
            control.send(f"refused: {error}".encode())
            return
        control.send(b"ready")
        sys.argv = ["program.py"]
        for name in ("quit", "exit"):  # what site adds
            setattr(builtins, name, _sitebuiltins.Quitter(name, ""))
        builtins.help = _sitebuiltins._Helper()
        sys.path.append(PACKAGES)
        os.environ.clear()
        os.environ.update(settings["environment"])
        gc.freeze()  # the pages of what is here stay shared with every program
        serve(control, backend, settings)


if __name__ == "__main__":
    main()
