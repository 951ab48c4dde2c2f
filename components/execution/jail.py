"""The inner half of the sandbox: a server that walls itself in and then runs one program after another.

Started only by components.execution.runner, with a bare interpreter; it imports nothing but the standard library and
the walls beside it (walls.py).
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
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # a bare interpreter has nothing of what our packages import: here they are names alone
    for package in ("components", "components.execution"):
        sys.modules[package] = types.ModuleType(package)
    sys.modules["components.execution"].__path__ = [str(Path(__file__).parent)]

from components.execution.walls import (
    BOX,
    DESCRIPTORS,
    PACKAGES,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PROGRAM,
    SHARED_MEMORY,
    WORK,
    call,
    die_with_parent,
    drop_privileges,
    enter_namespaces,
    enter_session,
    limit,
    open_box,
)

FIRST_UID = 1_000_000  # plus the session's process id: no two running programs share a uid, so limits count one program
NOBODY = 65534
TICKS = os.sysconf("SC_CLK_TCK")
STARVED_FACTOR = 10  # a program that others keep from running may take this many times its limit
LEFT_SECONDS = 2.0  # processes that end by themselves after the program, as multiprocessing's tracker, have this long
ANY_OOM_SCORE = "500"  # where memory is short, the kernel ends candidates before whoever judges them


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
    die_with_parent()
    enter_session()
    watcher = os.fork()
    if watcher == 0:
        die_with_parent()
        open_box(request["file_bytes"], runs_files="files" in request)
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


def _forget_packages() -> None:
    """Leave nothing of ours for a program to import."""
    for name in [each for each in sys.modules if each.partition(".")[0] == "components"]:
        del sys.modules[name]


def main() -> None:
    """Build the walls of the backend named, say whether they stand, and serve. Settings: view, environment,
    refused_calls."""
    backend, root, descriptor, settings = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    with socket.socket(fileno=descriptor) as control:
        try:
            die_with_parent()
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
        _forget_packages()
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
