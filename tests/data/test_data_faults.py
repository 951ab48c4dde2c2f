"""Damaged artifacts and full disks, at every data stage: a named error, the older artifact as it was, no leftovers."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from components.core import artifact, step
from components.core.artifact import Manifest
from components.core.config import StepConfig
from components.core.errors import ArtifactError
from components.data import clean, ingest
from components.data.check import check_clean, check_raw
from components.data.config import CheckCleanConfig, CheckRawConfig, CleanConfig, IngestConfig
from components.data.sources.config import DirectorySource
from components.tokens import tokenize, vocabulary
from components.tokens.config import TokenizeConfig, VocabularyConfig

VOCABULARY_SIZE = 512
Damage = Callable[[Path], None]


class NoConfig(StepConfig):
    """The config of a stage that stands for another one."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Artifacts of every stage up to the tokenizer, from 400 programs; data/clean holds what data/checked does."""
    root = tmp_path_factory.mktemp("stages")
    (root / "in").mkdir()
    source = random.Random(0)
    for number in range(400):
        names = (source.randbytes(8).hex() for _ in range(100))
        (root / "in" / f"{number}.py").write_text("".join(f"value_{name} = call('{name}')\n" for name in names))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(root / "state"))
        ingest.run(IngestConfig(sources=(DirectorySource(path=str(root / "in")),)), out=root / "raw")
        check_raw(CheckRawConfig(), source=root / "raw", out=root / "checked")
        checked = artifact.read(root / "checked")
        with artifact.create(
            root / "clean", stage="clean", config=NoConfig(), inputs=[checked], code=Path(__file__)
        ) as draft:
            for path in (root / "checked").glob("part-*.parquet"):
                with_clusters(path, draft.path / path.name)
        vocabulary.run(
            VocabularyConfig(vocabulary_size=VOCABULARY_SIZE),
            source=root / "clean",
            report=root / "clean",
            out=root / "tokenizer",
        )
        yield root


def with_clusters(source: Path, out: Path) -> None:
    """The rows of data/checked with the columns that clean adds."""
    frame = pl.read_parquet(source)
    frame.with_columns(cluster="id", redactions=pl.lit(0, dtype=pl.Int32)).write_parquet(out)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    with path.open("r+b") as target:
        target.truncate(path.stat().st_size // 2)


READERS: dict[str, tuple[str, Callable[[Path, Path], Manifest]]] = {
    "check_raw": ("raw", lambda root, out: check_raw(CheckRawConfig(), source=root / "raw", out=out)),
    "clean": ("checked", lambda root, out: clean.run(CleanConfig(), source=root / "checked", out=out)),
    "check_clean": (
        "clean",
        lambda root, out: check_clean(
            CheckCleanConfig(), source=root / "clean", checked=root / "checked", raw=root / "raw", out=out
        ),
    ),
    "vocabulary": (
        "clean",
        lambda root, out: vocabulary.run(VocabularyConfig(), source=root / "clean", report=root / "clean", out=out),
    ),
    "tokenize": (
        "clean",
        lambda root, out: tokenize.run(TokenizeConfig(), source=root / "clean", tokenizer=root / "tokenizer", out=out),
    ),
}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, r"part-00000\.parquet: found sha256 [0-9a-f]{64}, the manifest says [0-9a-f]{64}; delete the directory"),
        (truncate, r"part-00000\.parquet: found \d+ bytes, the manifest says \d+; delete the directory"),
        (Path.unlink, r"part-00000\.parquet: cannot be read \(No such file or directory\), the manifest lists it"),
    ],
    ids=("flipped", "truncated", "deleted"),
)
@pytest.mark.parametrize("stage", READERS)
def test_a_damaged_shard_is_named_and_never_used(
    stages: Path, tmp_path: Path, stage: str, damage: Damage, message: str
) -> None:
    name, read = READERS[stage]
    shutil.copytree(stages, tmp_path / "root", ignore=shutil.ignore_patterns("state", "in"))
    old = shutil.copytree(stages / "raw", tmp_path / "out")
    damage(tmp_path / "root" / name / "part-00000.parquet")
    with pytest.raises(ArtifactError, match=message) as error:
        read(tmp_path / "root", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert artifact.read(old).digest == artifact.read(stages / "raw").digest, "the older artifact is as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) in (["out", "root"], ["out", "root", "state"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of a stated number of kilobytes."""
    mounted = tmp_path / "small"
    mounted.mkdir()

    def mount(size_kb: int) -> Path:
        option = "remount," if mounted.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{option}size={size_kb}k", "none", str(mounted)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a file system")
        return mounted

    yield mount
    if mounted.is_mount():
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


WRITERS: dict[str, tuple[type[StepConfig], Callable[..., Manifest], StepConfig, list[str], int]] = {
    "ingest": (IngestConfig, ingest.run, IngestConfig(), [], 250),
    "check_raw": (CheckRawConfig, check_raw, CheckRawConfig(), ["source=raw"], 100),
    "vocabulary": (
        VocabularyConfig,
        vocabulary.run,
        VocabularyConfig(vocabulary_size=VOCABULARY_SIZE),
        ["source=clean", "report=clean"],
        24,
    ),
    "tokenize": (
        TokenizeConfig,
        tokenize.run,
        TokenizeConfig(),
        ["source=clean", "tokenizer=tokenizer"],
        200,
    ),
}


@pytest.mark.parametrize("stage", WRITERS)
def test_a_full_disk_is_one_line_and_the_rerun_passes(
    stages: Path,
    tmp_path: Path,
    small_disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    """As the command runs it. clean has its own test, beside its workers."""
    config_type, run, config, arguments, size_kb = WRITERS[stage]
    if isinstance(config, IngestConfig):
        config = IngestConfig(sources=(DirectorySource(path=str(stages / "in")),))
    params = tmp_path / "params.yaml"
    params.write_text(json.dumps({stage: config.model_dump(mode="json")}))
    disk = small_disk(size_kb)
    old = small_artifact(disk / "out")
    paths = [f"--{name}={stages / place}" for name, _, place in (each.partition("=") for each in arguments)]
    command = ["--params", str(params), *paths, "--out", str(disk / "out")]
    monkeypatch.setattr(step, "die_with_parent", lambda: None)  # the tests' own process is the stage here
    assert finished(stage, config_type, run, command) == 1
    line = f"{stage}: the disk is full; nothing was replaced, free the cause and run it again\n"
    assert capsys.readouterr().err.endswith(line)
    assert artifact.read(disk / "out").digest == old.digest, "the older artifact is as it was"
    assert [path.name for path in disk.iterdir()] == ["out"], "temporaries are gone"
    small_disk(100_000)
    assert finished(stage, config_type, run, command) == 0
    assert artifact.read(disk / "out").stage == stage
    assert [path.name for path in disk.iterdir()] == ["out"]


def small_artifact(out: Path) -> Manifest:
    with artifact.create(out, stage="older", config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
        (draft.path / "file").write_bytes(b"older")
    return artifact.read(out)


def finished(stage: str, config_type: type[StepConfig], run: Callable[..., Manifest], command: list[str]) -> int:
    """The exit code of a stage."""
    with pytest.raises(SystemExit) as exit_:
        step.main(stage, config_type, run, command)
    return int(exit_.value.code or 0)
