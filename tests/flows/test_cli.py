"""Names at the door: every command answers a wrong argument in one line, exit code 2, before anything starts."""

import sys
from pathlib import Path

import pytest

from components.core.closure import ROOT
from flows import cli

NO_NAME = "is no name; needed small letters, digits and hyphens"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
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
    code, errors = answer(monkeypatch, capsys, *arguments)
    assert code == 2 and said in errors
    assert errors.startswith("overnight: ") and errors.count("\n") == 1


def test_alone_it_shows_the_help(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, errors = answer(monkeypatch, capsys)
    assert code == 2 and "rollback" in errors and errors.count("\n") > 10
