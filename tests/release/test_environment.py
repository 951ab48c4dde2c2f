"""The environment repository against a real Git: what is promised about races, rollbacks and bad files."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.core.config import Settings
from components.core.errors import ConfigError, OvernightError
from components.release import environment
from components.release.config import ReleaseConfig
from components.release.environment import Desired, EnvironmentFile
from components.serving.versions import WeightedVersion

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
    with pytest.raises(ConfigError, match=r"production\.yaml at [0-9a-f]{12}: not valid YAML"):
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
    with pytest.raises(ConfigError, match=r"no nosuch\.yaml .*there is production\.yaml"):
        environment.read(settings, "nosuch", CONFIG)


def test_unreachable_remote_is_one_line_without_secrets(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path, environments_url="http://user:secret@127.0.0.1:9/environments.git")
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


def push_tree(settings: Settings, *entries: tuple[str, str, str], message: bytes = b"By hand", **files: bytes) -> str:
    """A commit of any tree on top of the branch: entries of (mode, object, path), and files by their stem."""
    bare = settings.state / "environments.git"

    def git(*arguments: str, data: bytes = b"") -> str:
        done = subprocess.run(["git", "-C", bare, *arguments], input=data, check=True, capture_output=True)
        return done.stdout.decode().strip()

    blobs = [("100644", git("hash-object", "-w", "--stdin", data=data), f"{name}.yaml") for name, data in files.items()]
    kinds = {"040000": "tree", "160000": "commit"}
    lines = [f"{mode} {kinds.get(mode, 'blob')} {found}\t{path}" for mode, found, path in (*entries, *blobs)]
    tree = git("mktree", "--missing", data="\n".join(lines).encode())
    head = git("rev-parse", "refs/heads/main")
    header = f"tree {tree}\nparent {head}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n".encode()
    commit = git("hash-object", "-t", "commit", "-w", "--stdin", data=header + message)
    git("update-ref", "refs/heads/main", commit)
    return commit


UNUSABLE = {
    "an anchor that contains itself": b"environment: production\nversions: &all\n  - also: *all\n",
    "deep": b"[" * 3000,
    "a tag": b'environment: !!float "x"',
    "Latin-1": b"environment: \xe9",
    "many": b"versions: [" + b"{}," * 10_000 + b"]",
    "a long number": b"environment: production\nversions: [{version: 1, digest: a, weight: " + b"1" * 5000 + b"}]",
    "no number": b"environment: production\nversions: [{version: 1, digest: a, weight: .nan}]",
    "large": b"#" * 3_000_000,
    "a key with a line break": b'"a\\nb": 1',
    "nothing": b"",
}


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE)
def test_rollback_passes_over_what_cannot_be_used_wherever_it_stands(settings: Settings, content: bytes) -> None:
    promote(settings, version(1))
    bad = push_tree(settings, production=content)
    with pytest.raises(ConfigError, match="overnight rollback production") as caught:
        environment.read(settings, "production", CONFIG)
    assert str(caught.value).isprintable() and bad[:12] in str(caught.value) and len(str(caught.value)) < 600
    first = environment.rollback(settings, "production", CONFIG, reason="")
    assert first.file.versions == (version(1),)
    again = push_tree(settings, production=content)
    promoted = environment.rollback(settings, "production", CONFIG, reason="")
    assert promoted.file.versions == (version(1),)
    promote(settings, version(2))
    restored = environment.rollback(settings, "production", CONFIG, reason="")
    assert restored.file.versions == (version(1),)
    assert again[:12] in promoted.passed_over[0] and all(each.isprintable() for each in promoted.passed_over)


def test_rollback_works_when_the_file_is_gone_or_no_file(settings: Settings) -> None:
    promote(settings, version(1))
    head = promote(settings, version(2)).commit
    bare = settings.state / "environments.git"
    link = subprocess.run(
        ["git", "-C", bare, "hash-object", "-w", "--stdin"], input=b"/etc/passwd", check=True, capture_output=True
    )
    tree = subprocess.run(["git", "-C", bare, "rev-parse", f"{head}^{{tree}}"], check=True, capture_output=True)
    kinds = {
        "no production.yaml": (),
        "a symbolic link": (("120000", link.stdout.decode().strip(), "production.yaml"),),
        "a submodule": (("160000", head, "production.yaml"),),
        "a folder": (("040000", tree.stdout.decode().strip(), "production.yaml"),),
    }
    for kind, entries in kinds.items():
        push_tree(settings, *entries, message=b"Non-UTF-8 \xff\xfe, a bell \x07", other=b"{}")
        with pytest.raises(ConfigError, match=kind):
            environment.read(settings, "production", CONFIG)
        restored = environment.rollback(settings, "production", CONFIG, reason="")
        assert restored.file.versions == (version(2),) and kind in restored.passed_over[0]
        assert environment.read(settings, "production", CONFIG).file == restored.file
        assert environment.history(settings, "production", CONFIG)[0].subject.isprintable()


def test_rollback_does_not_go_to_what_stood_only_on_a_merged_branch(settings: Settings, tmp_path: Path) -> None:
    promote(settings, version(1))
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", settings.state / "environments.git", clone], check=True)
    git = ["git", "-C", clone, "-c", "user.name=Ada", "-c", "user.email=ada@localhost"]
    subprocess.run([*git, "checkout", "-q", "-b", "topic"], check=True)
    for number in (7, 8):
        file = EnvironmentFile(environment="production", versions=(version(number),))
        (clone / "production.yaml").write_text(environment.render(file))
        subprocess.run([*git, "commit", "-qam", f"Try {number}"], check=True)
    subprocess.run([*git, "checkout", "-q", "main"], check=True)
    subprocess.run([*git, "merge", "-q", "--no-ff", "-m", "Merge", "topic"], check=True)
    subprocess.run([*git, "push", "-q", "origin", "main"], check=True)
    assert environment.read(settings, "production", CONFIG).file.versions == (version(8),)
    assert environment.rollback(settings, "production", CONFIG, reason="").file.versions == (version(1),)


def test_a_shallow_remote_is_read_and_rolled_back_as_far_as_it_goes(settings: Settings, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        promote(settings, version(number))
    shallow = tmp_path / "shallow.git"
    source = f"file://{settings.state / 'environments.git'}"
    subprocess.run(["git", "clone", "-q", "--bare", "--depth", "2", source, shallow], check=True)
    other = Settings(state=tmp_path / "other", environments_url=str(shallow))
    assert environment.read(other, "production", CONFIG).file.versions == (version(3),)
    assert environment.rollback(other, "production", CONFIG, reason="").file.versions == (version(2),)


def test_another_branch_whose_name_ends_alike_is_not_read(settings: Settings) -> None:
    first = promote(settings, version(1))
    promote(settings, version(2))
    bare = settings.state / "environments.git"
    subprocess.run(["git", "-C", bare, "update-ref", "refs/heads/a/refs/heads/main", first.commit], check=True)
    assert environment.read(settings, "production", CONFIG).file.versions == (version(2),)


@pytest.mark.parametrize("name", ["../production", "--all", "-x", "a/b", "", "a\nb", "Production", "x" * 64, ":/"])
def test_a_name_that_is_no_name_reaches_no_git(settings: Settings, name: str) -> None:
    for call in (
        lambda: environment.read(settings, name, CONFIG),
        lambda: environment.rollback(settings, name, CONFIG, reason=""),
        lambda: environment.history(settings, name, CONFIG),
        lambda: environment.require(settings, name, CONFIG),
    ):
        with pytest.raises(ConfigError, match="is no name; needed small letters") as caught:
            call()
        assert str(caught.value).isprintable()
    assert not (settings.state / "environments.git").exists()


def test_an_environment_that_is_not_there_is_answered_with_those_that_are(settings: Settings) -> None:
    promote(settings, version(1))
    for call in (
        lambda: environment.rollback(settings, "nosuch", CONFIG, reason=""),
        lambda: environment.require(settings, "nosuch", CONFIG),
    ):
        with pytest.raises(ConfigError, match=r"there is production"):
            call()
    push_tree(settings, staging=b"{}")
    environment.require(settings, "production", CONFIG)  # removed, and yet to be rolled back
    environment.require(settings, "staging", CONFIG)


@pytest.mark.parametrize("name", ["", " ", "a <b>", "a\nb", "a\0b", "...", "x" * 300])
def test_authors_that_git_would_not_take_are_refused_at_the_door(name: str) -> None:
    for key in ("author_name", "author_email"):
        with pytest.raises(ValueError, match=key):
            ReleaseConfig.model_validate({key: name})
