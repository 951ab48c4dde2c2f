"""Names at the door: every command answers a wrong argument in one line, exit code 2, before anything starts."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.graph.closure import ROOT
from flows.commands import cli

NO_NAME = "is no name; needed small letters, digits and hyphens"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without a history: what a command reads before it starts anything."""
    for name in ("params.yaml", "dvc.yaml", "opt-out.yaml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    return tmp_path


def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["overnight", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    code = caught.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rollback", "nosuch"), "no environment nosuch; there is production"),
        (("rollback", "../production"), NO_NAME),
        (("rollback", "--", "--all"), NO_NAME),
        (("rollback", ""), NO_NAME),
        (("rollback", "a\nb"), NO_NAME),
        (("rollback", "--nosuch"), "No such option: --nosuch"),
        (("promote", "-1"), "'VERSION': Input should be greater than or equal to 1"),
        (("promote", "abc"), "'VERSION': Input should be a valid integer"),
        (("promote",), "Missing argument 'VERSION'"),
        (("promote", "1", "--to", "nosuch"), "no environment nosuch; there is production"),
        (("promote", "1", "--to", "x/../y"), NO_NAME),
        (("promote", "1", "2"), "unexpected extra argument"),
        (("status", "nosuch"), "unexpected extra argument"),
        (("release", "nosuch"), "'nosuch': no such folder"),
        (("release", "--", "-x"), "'-x': no such folder"),
        (("release", "params.yaml"), "'params.yaml': no such folder"),
        (("evaluate", "nosuch"), "'nosuch': no such folder"),
        (("compare", "nosuch:a", "."), "'nosuch': no such folder"),
        (("compare", "", "."), "no such folder"),
        (("trace", "--step", "abc"), "'--step': Input should be a valid integer"),
        (("cycle", "--profile", "../x"), "profile '../x' does not exist; there are"),
        (("cycle", "--set", "plan.hours=&a [*a]"), "has the anchor &a"),
        (("cycle", "--set", "plan.hours=.nan"), "needed a finite number"),
        (("cycle", "--set", "a\n=1"), "--set"),
        (("cycle", "--set", "release.environment=../x"), "release.environment is '../x'"),
        (("cycle", "--set", "release.author_name='a <b>'"), "release.author_name is 'a <b>'"),
        (("cycle", "--replay", "a\n\x1b[31mb"), "--replay a \\x1b[31mb: "),
        (("cycle", "--hours", "nan"), "plan.hours is 'nan'"),
        (("cycle", "--set", "clean.filters.max_mean_line=60"), "is not a key; did you mean clean.filters.max"),
        (("cycle", "--set", "plan.hours=soon"), "plan.hours is 'soon'"),
        (("cycle", "--profile", "smok"), "profile 'smok' does not exist; there are: adapt, adapt-gpu, cpu-hour"),
        (("cycle", "--profile", "smoke", "--hours", "0.01"), "plan.hours is 0.01 (36 s); with every check"),
        (("cycle", "--replay", "nope"), "--replay nope: reports/cycles/nope.json does not exist"),
        (("cycle", "--replay", "nope", "--hours", "1"), "--replay takes every parameter from the record"),
        (("cycle", "--until", "deploy"), "--until deploy: not a stage; there are: ingest"),
        (("nosuch",), "No such command 'nosuch'"),
        (("--nosuch",), "No such option"),
    ],
)
def test_a_wrong_argument_is_answered_in_one_line(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    before = Path("params.yaml").read_bytes()
    code, errors = answer(monkeypatch, capsys, *arguments)
    assert code == 2 and said in errors
    assert errors.startswith("overnight: ") and errors.count("\n") == 1
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("RAY_ADDRESS", "127.0.0.1:9", "RAY_ADDRESS is 127.0.0.1:9 and nothing answers there"),
        ("OVERNIGHT_GATEWAY_PORT", "many", "OVERNIGHT_GATEWAY_PORT is 'many'"),
    ],
)
def test_a_wrong_setting_is_told_before_a_cycle_begins(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(variable, value)
    code, errors = answer(monkeypatch, capsys, "cycle")
    assert code == 2 and said in errors and errors.count("\n") == 1


def test_an_unknown_key_of_the_file_is_told(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("  vocabulary_size:", "  vocab:"))
    code, errors = answer(monkeypatch, capsys, "cycle")
    assert code == 2 and errors.count("\n") == 1
    assert "params.yaml: vocabulary.vocab is not a key; did you mean vocabulary.vocabulary_size?" in errors


def test_alone_it_shows_the_help(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, errors = answer(monkeypatch, capsys)
    assert code == 2 and "rollback" in errors and errors.count("\n") > 10


def test_help_loads_no_more_than_it_shows() -> None:
    """Every command's help, in one bare process: neither the platform's tools nor our own configuration."""
    program = """
import sys
from typer.main import get_command
from flows.commands import cli

names = sorted(get_command(cli.app).commands)
for arguments in ([], *([name] for name in names)):
    cli.app([*arguments, "--help"], standalone_mode=False)
print(*names, file=sys.stderr)
print(*sorted({each.partition(".")[0] for each in sys.modules}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    names, loaded = (line.split() for line in done.stderr.splitlines())
    assert {"cycle", "promote", "trace"} <= {*names} and "flows" in loaded
    assert done.stdout.count("Usage:") == len(names) + 1
    assert not {*loaded} & {"components", "mlflow", "polars", "prefect", "ray", "rich", "torch"}
