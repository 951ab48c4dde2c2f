"""The environment repository against a real Git: what is promised about races, rollbacks and bad files."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.core.config import Settings
from components.core.errors import ConfigError, OvernightError
from components.release import environment
from components.release.config import ReleaseConfig
from components.release.environment import Desired, EnvironmentFile, WeightedVersion

CONFIG = ReleaseConfig()


def version(number: int, weight: int = 100) -> WeightedVersion:
    return WeightedVersion(version=number, digest=f"{number:064x}", weight=weight)


def promote(settings: Settings, *versions: WeightedVersion) -> Desired:
    return environment.commit(
        settings,
        "production",
        CONFIG,
        change=lambda now: now.file.model_copy(update={"versions": versions}),
        subject=f"Promote version {versions[0].version}",
        body="Because a test says so.",
    )


def by_hand(settings: Settings, tmp_path: Path, text: str) -> str:
    """A commit that a person makes with a clone and an editor; its id."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", settings.state / "environments.git", clone], check=True)
    (clone / "production.yaml").write_text(text)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@localhost"]
    subprocess.run(["git", "-C", clone, *identity, "commit", "-qam", "Edit by hand"], check=True)
    subprocess.run(["git", "-C", clone, "push", "-q"], check=True)
    return subprocess.run(
        ["git", "-C", clone, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_first_read_creates_the_repository_with_nothing_running(settings: Settings) -> None:
    desired = environment.read(settings, "production", CONFIG)
    assert desired.file == EnvironmentFile(environment="production", versions=())
    assert desired == environment.read(settings, "production", CONFIG)


def test_commit_is_what_a_plain_git_client_sees(settings: Settings) -> None:
    desired = promote(settings, version(1, 90), version(2, 10))
    text = subprocess.run(
        ["git", "-C", settings.state / "environments.git", "show", "main:production.yaml"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert text == environment.render(desired.file)
    assert environment.read(settings, "production", CONFIG) == desired


def test_unchanged_state_makes_no_commit(settings: Settings) -> None:
    assert promote(settings, version(1)) == promote(settings, version(1))
    assert len(environment.history(settings, "production", CONFIG)) == 2


def test_a_person_s_commit_is_read_and_kept_by_the_next_one(settings: Settings, tmp_path: Path) -> None:
    promote(settings, version(1))
    file = EnvironmentFile(environment="production", versions=(version(4),))
    edited = by_hand(settings, tmp_path, environment.render(file))
    assert environment.read(settings, "production", CONFIG) == Desired(file=file, commit=edited)
    promote(settings, version(5))
    assert [each.author for each in environment.history(settings, "production", CONFIG)] == [
        "Overnight",
        "Ada",
        "Overnight",
        "Overnight",
    ]


def test_changes_at_once_all_land_one_upon_the_other(settings: Settings) -> None:
    promote(settings, version(100))

    def step(_: int) -> Desired:
        return environment.commit(
            settings,
            "production",
            CONFIG,
            change=lambda now: now.file.model_copy(update={"versions": (version(now.file.versions[0].version + 1),)}),
            subject="Next",
            body="",
        )

    with ThreadPoolExecutor(max_workers=4) as pool:
        made = list(pool.map(step, range(8)))
    assert sorted(each.file.versions[0].version for each in made) == list(range(101, 109))
    assert environment.read(settings, "production", CONFIG).file.versions == (version(108),)
    assert len(environment.history(settings, "production", CONFIG)) == 10


def test_a_change_may_refuse_when_the_state_moved(settings: Settings) -> None:
    promote(settings, version(1))

    def refuse(now: Desired) -> EnvironmentFile:
        raise OvernightError(f"decided against version 0, found version {now.file.versions[0].version}")

    with pytest.raises(OvernightError, match="found version 1"):
        environment.commit(settings, "production", CONFIG, change=refuse, subject="", body="")
    assert environment.read(settings, "production", CONFIG).file.versions == (version(1),)


def test_rollback_restores_and_a_second_one_undoes_it(settings: Settings) -> None:
    promote(settings, version(1))
    second = promote(settings, version(2))
    back = environment.rollback(settings, "production", CONFIG, reason="p99 doubled")
    assert back.file.versions == (version(1),)
    newest = environment.history(settings, "production", CONFIG)[0]
    assert newest.subject == 'Revert "Promote version 2"'
    assert "p99 doubled" in newest.body and f"This reverts commit {second.commit}" in newest.body
    assert environment.rollback(settings, "production", CONFIG, reason="").file.versions == (version(2),)


def test_of_rollbacks_at_once_only_one_counts(settings: Settings) -> None:
    promote(settings, version(1))
    promote(settings, version(2))

    def back(_: int) -> bool:
        try:
            environment.rollback(settings, "production", CONFIG, reason="")
        except OvernightError as error:
            assert "during the rollback" in str(error)
            return False
        return True

    with ThreadPoolExecutor(max_workers=2) as pool:
        assert sum(pool.map(back, range(2))) in (1, 2)
    undone = len(environment.history(settings, "production", CONFIG)) - 3
    assert environment.read(settings, "production", CONFIG).file.versions == (version(1 if undone == 1 else 2),)


def test_rollback_leaves_a_broken_file_behind(settings: Settings, tmp_path: Path) -> None:
    promote(settings, version(1))
    by_hand(settings, tmp_path, "environment: production\nversions: [\n")
    with pytest.raises(ConfigError, match=r"production\.yaml: not valid YAML"):
        environment.read(settings, "production", CONFIG)
    assert environment.rollback(settings, "production", CONFIG, reason="").file.versions == (version(1),)


def test_rollback_never_empties(settings: Settings) -> None:
    promote(settings, version(1))
    with pytest.raises(ConfigError, match="no earlier state"):
        environment.rollback(settings, "production", CONFIG, reason="")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("environment: staging\nversions: []\n", "environment is 'staging'; needed 'production'"),
        ("environment: production\n", "versions is missing"),
        ("environment: production\nversions: []\nweight: 3\n", "weight is not a key"),
        ("versions", "found str; needed a mapping"),
        (
            f"environment: production\nversions:\n  - {{version: 1, digest: '{1:064x}', weight: 60}}\n",
            "the weights sum to 60, needed 100",
        ),
        (
            f"environment: production\nversions:\n  - {{version: 1, digest: '{1:064x}', weight: 50}}\n"
            f"  - {{version: 1, digest: '{1:064x}', weight: 50}}\n",
            "listed twice",
        ),
        ("environment: production\nversions:\n  - {version: 1, digest: abc, weight: 100}\n", "versions.0.digest"),
        (f"environment: production\nversions:\n  - {{version: x, digest: '{1:064x}', weight: 100}}\n", "valid integer"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(settings: Settings, tmp_path: Path, text: str, message: str) -> None:
    promote(settings, version(1))
    by_hand(settings, tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        environment.read(settings, "production", CONFIG)
    assert "\n" not in str(caught.value)


def test_emptying_is_refused(settings: Settings) -> None:
    promote(settings, version(1))
    with pytest.raises(ConfigError, match="must not be emptied"):
        environment.commit(
            settings,
            "production",
            CONFIG,
            change=lambda now: now.file.model_copy(update={"versions": ()}),
            subject="",
            body="",
        )


def test_unknown_environment_says_what_there_is(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"no staging\.yaml .*there is production\.yaml"):
        environment.read(settings, "staging", CONFIG)


def test_unreachable_remote_is_one_line_without_secrets(tmp_path: Path) -> None:
    address = "http://user:secret@127.0.0.1:9/environments.git"  # past the settings, which would refuse it
    settings = Settings(state=tmp_path).model_copy(update={"environments_url": address})
    with pytest.raises(OvernightError, match="git ls-remote failed") as caught:
        environment.read(settings, "production", CONFIG)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_refusing_hook_is_reported_not_retried(settings: Settings) -> None:
    promote(settings, version(1))
    hook = settings.state / "environments.git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(OvernightError, match="pre-receive hook declined"):
        promote(settings, version(2))
    assert environment.read(settings, "production", CONFIG).file.versions == (version(1),)
