"""State is its owner's alone: folders 0700, keys 0600, no name that somebody else could have taken."""

import os
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from components.core import private
from components.core.config import Settings, read_settings
from components.core.errors import ConfigError
from components.machine import service_keys as keys
from components.machine import services

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can enter, as a checkout or /tmp; pytest's own are private."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def nobody(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True)


@as_root
@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_another_user_reads_nothing_of_the_state(shared: Path, umask: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(umask)
    try:
        settings = Settings(state=shared / "state")
        key = keys.services_key(settings)
        keys.make_ray_key(settings)
        (settings.state / "settings.toml").write_text("")
    finally:
        os.umask(before)
    for path in (keys.services_path(settings), keys.ray_path(settings), settings.state / "settings.toml"):
        done = nobody("cat", str(path))
        assert done.returncode and key not in done.stdout
    assert nobody("ls", str(settings.state)).returncode
    assert mode(settings.state) == mode(settings.state / "keys") == 0o700
    assert mode(keys.services_path(settings)) == mode(keys.ray_path(settings)) == 0o600
    assert capsys.readouterr().err == "", "private from the start, not narrowed afterwards"


def test_an_open_state_is_narrowed_with_one_line_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o755)
    for _ in range(2):
        read_settings({"OVERNIGHT_STATE": str(state)})
    assert mode(state) == 0o700
    assert capsys.readouterr().err == f"overnight: {state} was open to other users (mode 0755); it is private now\n"


@as_root
@pytest.mark.parametrize("made", ["folder", "link"])
def test_a_state_that_somebody_else_made_first_is_refused(shared: Path, made: str) -> None:
    state = shared / "state"
    owned = state if made == "folder" else shared / "trap"
    owned.mkdir()
    os.chown(owned, NOBODY, NOBODY)
    if made == "link":
        state.symlink_to(owned)
    (owned / "settings.toml").write_text('environments_url = "ext::sh -c evil"')
    for read in (lambda: read_settings({"OVERNIGHT_STATE": str(state)}), lambda: private.folder(state)):
        with pytest.raises(ConfigError, match=f"belongs to user {NOBODY} .* needed user 0: .*chown.*OVERNIGHT_STATE"):
            read()
    assert list(owned.iterdir()) == [owned / "settings.toml"]


@as_root
@pytest.mark.parametrize("name", ["services/ray.json", "settings.toml", "keys/services"])
def test_a_file_that_somebody_else_wrote_is_not_believed(tmp_path: Path, name: str) -> None:
    """It may be from a time when the folder was open: a record says which process to end, settings say where to go."""
    settings = Settings(state=tmp_path / "state")
    path = settings.state / name
    private.folder(settings.state)
    private.folder(path.parent)
    path.write_text("")
    os.chown(path, NOBODY, NOBODY)
    use = {
        "services/ray.json": lambda: services.stop(settings, "ray"),
        "settings.toml": lambda: read_settings({"OVERNIGHT_STATE": str(settings.state)}),
        "keys/services": lambda: keys.services_key(settings),
    }
    with pytest.raises(ConfigError, match=f"{path} belongs to user {NOBODY}"):
        use[name]()


def test_one_key_however_many_ask_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "one"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: private.key(path), range(32)))
    assert len(found) == 1 and len(found.pop()) == 64
    assert [each.name for each in path.parent.iterdir()] == ["one"] and mode(path) == 0o600
    assert private.key(tmp_path / "keys" / "two") != private.key(path)


@pytest.mark.parametrize("content", ["", "short", "0" * 63 + "\n"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: str) -> None:
    path = private.folder(tmp_path / "keys") / "one"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no key; delete it"):
        private.key(path)


def test_a_scratch_folder_is_private_new_and_goes(tmp_path: Path) -> None:
    record = tmp_path / "record"
    one = private.scratch(record, "overnight-test-")
    (one / "r").mkdir(mode=0o777)
    assert mode(one) == 0o700 and record.read_text() == str(one)
    two = private.scratch(record, "overnight-test-")
    assert two != one and not one.exists()
    private.discard(record, "overnight-test-")
    assert not two.exists() and not record.exists()
    private.discard(record, "overnight-test-")


def test_a_record_that_names_something_else_removes_nothing(tmp_path: Path) -> None:
    record, other = tmp_path / "record", tmp_path / "work"
    other.mkdir()
    link = tmp_path / "overnight-test-link"
    link.symlink_to(other)
    for path in (other, link, tmp_path / "overnight-test-absent"):
        record.write_text(str(path))
        private.discard(record, "overnight-test-")
    assert other.is_dir() and link.is_symlink()
