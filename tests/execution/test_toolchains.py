"""Of tools outside of the system's folders programs see what these need, and nothing that a user keeps beside them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.core.errors import OvernightError
from components.execution import languages, runner, sandbox, toolchains
from components.execution.languages import missing, tools
from components.execution.runner import WallError, open_runner
from components.execution.sandbox import Program, run_in

SECRET = "secret of the user"


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """Where tools are is asked anew, in the test and after it."""
    cached = [
        *(toolchains.tool, toolchains.view, toolchains.search_path, toolchains._private_in_system, toolchains.python),
        *(languages.missing, runner.environment, sandbox._broken, sandbox._absent, sandbox.isolation),
    ]

    def clear() -> None:
        for each in cached:
            each.cache_clear()

    clear()
    yield clear
    clear()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]) -> Iterator[Path]:
    """A home folder with keys and, in ~/.local, a shell as a toolchain; what is cached of it goes before its end."""
    folder = tmp_path / "home"
    (folder / ".local/bin").mkdir(parents=True)
    (folder / ".ssh").mkdir()
    for name in (".ssh/id_rsa", "key", ".local/key", ".local/bin/key"):
        (folder / name).write_text(SECRET)
        (folder / name).chmod(0o600)
    shutil.copy(shutil.which("bash") or "", folder / ".local/bin/bash")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PATH", f"{folder}/.local/bin", prepend=":")
    yield folder
    monkeypatch.undo()


@pytest.mark.parametrize("backend", runner.BACKENDS)
def test_nothing_beside_a_tool_in_a_home_folder_is_seen(home: Path, backend: runner.Backend) -> None:
    source = (
        f'case $BASH in {home}/.local/bin/bash) ;; *) echo "$BASH"; exit 1 ;; esac\n'
        f"shopt -s dotglob globstar nullglob\nseen=({home}/**/*)\nexpected=({home}/.local{{,/bin{{,/bash}}}})\n"
        'set -e\n[[ "${seen[*]}" = "${expected[*]}" ]] || { echo "${seen[*]}"; exit 1; }\n'
    )
    try:
        with open_runner(backend) as opened:
            outcome = run_in(opened, Program(source=source, language="bash"), 10.0, 2**29, control=False)
    except (WallError, PermissionError) as error:
        pytest.skip(f"not possible here: {error}")
    assert outcome.passed, outcome


def test_walls_that_show_a_folder_of_keys_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: the folder above the tool's is shown whole."""
    monkeypatch.setitem(toolchains.LIBRARIES, "bash", ("",))
    monkeypatch.setattr(toolchains, "_refusal", lambda folder, inside, public: None)
    with pytest.raises(OvernightError, match="escaped: AssertionError: find a key of the user"):
        sandbox.isolation()


def test_the_baits_lie_where_keys_do_and_go(home: Path) -> None:
    around = {home, home / ".local", home / ".local/bin"}
    assert around <= set(toolchains.baits(tools()))
    before = {folder: sorted(folder.iterdir()) for folder in around}
    sandbox.isolation()
    assert {folder: sorted(folder.iterdir()) for folder in around} == before


def jdk(folder: Path) -> Path:
    """What asks to be shown as a Java: it says where it is installed."""
    for name in ("bin", "lib/security", "conf"):
        (folder / name).mkdir(parents=True)
    for name in ("java", "javac"):
        (folder / "bin" / name).write_text(f"#!/bin/sh\necho '    java.home = {folder}' >&2\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def test_of_an_installation_its_library_is_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = jdk(home / "sdk/java")
    monkeypatch.setenv("PATH", f"{folder}/bin", prepend=":")
    assert missing("java") is None
    shown = [path for path in toolchains.view(tools()).private if path.startswith(str(folder))]
    assert sorted(shown) == [f"{folder}/{each}" for each in ("bin/java", "bin/javac", "conf", "lib")]


@pytest.mark.parametrize(
    ("where", "secret", "reason"),
    [
        ("sdk/java", "lib/.ssh/known_hosts", "lib holds .ssh, so"),
        ("sdk/java", "lib/security/id_ed25519", "lib holds security/id_ed25519, so"),
        ("sdk/java", "conf/.netrc", "conf holds .netrc, so"),
        ("sdk/java", "lib/security/unlike.any", "lib holds security/unlike.any, which others may not read, so"),
        (".local", "lib/file", "lib holds what other programs have installed beside it, so"),
        ("", "lib/file", "lib holds what other programs have installed beside it, so"),
    ],
)
def test_a_folder_that_holds_keys_is_refused_with_the_reason(
    home: Path, monkeypatch: pytest.MonkeyPatch, where: str, secret: str, reason: str
) -> None:
    shutil.rmtree(home / ".local")
    folder = jdk(home / where)
    (folder / secret).parent.mkdir(exist_ok=True)
    (folder / secret).write_text(SECRET)
    (folder / secret).chmod(0o600)
    monkeypatch.setenv("PATH", f"{folder}/bin", prepend=":")
    assert missing("java") == f"{folder}/{reason} programs may not see it; install default-jdk-headless"
    assert not [path for path in toolchains.view(tools()).private if path.startswith(str(home))]


def test_a_home_folder_around_a_library_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = jdk(home / "java")
    (folder / "lib/me").mkdir()
    monkeypatch.setenv("PATH", f"{folder}/bin", prepend=":")
    monkeypatch.setenv("HOME", str(folder / "lib/me"))
    assert (missing("java") or "").startswith(f"{folder}/lib holds your home folder, so programs may not see it")


def test_a_front_is_asked_for_the_tool_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the shims of version managers: a script that knows where the tool is."""
    real = home / "versions/1.2/bin/node"
    real.parent.mkdir(parents=True)
    shutil.copy(shutil.which("bash", path="/usr/bin:/bin") or "", real)
    shim = home / ".local/bin/node"
    shim.write_text(f"#!/bin/sh\necho {real}\n")
    shim.chmod(0o755)
    found = toolchains.tool("node")
    assert found is not None and found.shown == (real,)
    assert toolchains.search_path(("node",)).split(":").count(str(real.parent)) == 1


def test_a_home_folder_within_the_system_is_empty_in_the_jail(
    monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    monkeypatch.setenv("HOME", "/usr/share/zoneinfo")
    if not Path("/usr/share/zoneinfo").is_dir():
        pytest.skip("no such folder here")
    assert toolchains.view(tools()).hidden == ("/usr/share/zoneinfo",)
    outcome = sandbox.run_program("import os\nassert os.listdir('/usr/share/zoneinfo') == []\n")
    assert outcome.passed, outcome
    monkeypatch.undo()


def test_packages_of_the_interpreter_are_hidden_and_its_library_is_not() -> None:
    folder = toolchains._site_packages()
    source = f"import os\nassert os.path.isdir(os.path.dirname(os.__file__))\nassert not os.listdir({str(folder)!r})\n"
    if not folder.is_dir():
        pytest.skip("this Python has no folder of packages")
    outcome = sandbox.run_program(source)
    assert outcome.passed, outcome


def test_a_tool_that_does_not_run_in_the_sandbox_is_no_failure_of_a_program(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = home / ".local/bin/node"
    broken.write_text(f"#!/bin/sh\ncase $1 in -p) echo {broken} ;; *) echo 'Error: broken' >&2; exit 1 ;; esac\n")
    broken.chmod(0o755)
    outcome = sandbox.run_program(Program(source="", language="javascript"))
    assert (outcome.cause, outcome.detail) == (
        "not_run",
        "javascript does not run in the sandbox: raised: Error: broken",
    )
