"""The contract: manifest last, whole or not at all, digests without times, readers that check what they read."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig, canonical_json, digest_of
from components.core.errors import ArtifactError
from components.core.graph.closure import digest_of_code


class Config(StepConfig):
    size: int = 3


def write(
    out: Path, content: str = "text", *, run: float = 1.0, inputs: tuple[Manifest, ...] = (), timed: str | None = None
) -> Manifest:
    with artifact.create(out, stage="example", config=Config(), inputs=inputs, code=Path(artifact.__file__)) as draft:
        (draft.path / "nested").mkdir()
        (draft.path / "nested" / "file.txt").write_text(content)
        draft.rows["nested/file.txt"] = 1
        draft.statistics["words"] = len(content.split())
        draft.run["measured"] = run
        if timed is not None:
            (draft.path / "seconds.json").write_text(timed)
            draft.timed.add("seconds.json")
    assert draft.manifest is not None
    return draft.manifest


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = write(tmp_path / "out")
    assert artifact.read(tmp_path / "out") == manifest
    assert manifest.rows == 1 and manifest.statistics == {"words": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_manifest_says_which_code_wrote_it_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([{"module.py": "aa"}, {"module.py": "bb"}])
    monkeypatch.setattr(artifact, "code_of", lambda _: next(states))
    manifest = write(tmp_path / "out")
    assert manifest.run["code"] == {"module.py": "aa"}
    assert manifest.code_version == digest_of_code({"module.py": "aa"}) != digest_of_code({"module.py": "bb"})


def test_digest_knows_content_and_lineage_but_no_times_hosts_or_places(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", run=1.0), write(tmp_path / "elsewhere" / "b", run=2.0)
    assert first.digest == second.digest and first.run != second.run
    assert write(tmp_path / "c", "other").digest != first.digest
    assert write(tmp_path / "d", inputs=(first,)).digest != first.digest
    assert str(tmp_path) not in first.model_dump_json()


def test_digest_knows_no_file_that_holds_times(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, timed=name) for name in ("1", "22"))
    assert first.digest == second.digest and first.timed != second.timed
    assert write(tmp_path / "333").digest == first.digest, "as if it were not there"
    assert artifact.read(tmp_path / "1") == first
    assert [path.name for path in artifact.files(tmp_path / "1", "*.json")] == ["seconds.json"]


@pytest.mark.parametrize("name", ["nested/file.txt", "seconds.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_named(tmp_path: Path, damage: str, name: str) -> None:
    manifest = write(tmp_path / "out", timed="text")
    path = tmp_path / "out" / name
    if damage == "flip":
        path.write_bytes(b"tExt")
    elif damage == "truncate":
        path.write_bytes(b"te")
    else:
        path.unlink()
    with pytest.raises(ArtifactError) as caught:
        artifact.read(tmp_path / "out")
    said = str(caught.value)
    assert str(path) in said and "\n" not in said
    if damage == "flip":
        assert artifact.sha256_of(path) in said and manifest.all_files[0].sha256 in said


def put(kind: str, place: Path, target: Path) -> None:
    """Something at a place that no stage has written."""
    if kind == "file":
        place.write_text("x")
    elif kind == "folder":
        place.mkdir()
    elif kind == "link":
        place.symlink_to(target)
    elif kind == "dangling link":
        place.symlink_to(target / "absent")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.relpath(place))


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "pipe", "socket"])
@pytest.mark.parametrize("name", ["model_zz.safetensors", ".DS_Store", "nested/file.txt.bak", "nested/two\nlines"])
def test_what_the_manifest_does_not_list_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    out = tmp_path / "out"
    manifest = write(out)
    monkeypatch.chdir(out)  # a socket's path has 108 bytes at most
    put(kind, out / name, tmp_path)
    with pytest.raises(ArtifactError, match="that the manifest does not list; remove it, or") as caught:
        artifact.read(out)
    said = str(caught.value)
    assert name.partition("\n")[0] in said and kind.split()[-1] in said and "\n" not in said
    assert artifact.files(out, "*") == []
    assert artifact.read(out, verify=False) == manifest


@pytest.mark.parametrize("listed", ["nested/file.txt", "nested", artifact.MANIFEST])
def test_a_link_in_the_place_of_what_is_listed_is_refused(tmp_path: Path, listed: str) -> None:
    """To the very same bytes: they could be others at the next reading."""
    out, other = tmp_path / "out", tmp_path / "other"
    write(out)
    write(other)
    if (out / listed).is_dir():
        shutil.rmtree(out / listed)
    else:
        (out / listed).unlink()
    (out / listed).symlink_to(other / listed)
    with pytest.raises(ArtifactError, match=r"a link that the manifest does not list|no file of its own"):
        artifact.read(out)


def test_a_manifest_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / artifact.MANIFEST)
    with pytest.raises(ArtifactError, match="no file of its own"):
        artifact.read(tmp_path)


def test_a_link_to_an_artifact_is_the_artifact(tmp_path: Path) -> None:
    manifest = write(tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert artifact.read(tmp_path / "link") == manifest


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["/etc/passwd"], "lies outside"),
        (["../file.txt"], "lies outside"),
        (["nested/../../file.txt"], "lies outside"),
        (["nested/../nested/file.txt"], "lies outside"),
        (["nested/file.txt", "nested/file.txt"], "lists a file twice"),
        (["nested", "nested/file.txt"], "as a file and as a folder"),
        ([""], "no stage writes"),
        (["."], "no stage writes"),
        (["./nested/file.txt"], "no stage writes"),
        (["nested//file.txt"], "no stage writes"),
        (["nested/"], "no stage writes"),
        (["nested\\file.txt"], "no stage writes"),
        (["..\\file.txt"], "no stage writes"),
        (["nested/file.txt\0"], "no stage writes"),
        (["two\nlines"], "no stage writes"),
        ([artifact.MANIFEST], "no stage writes"),
    ],
)
def test_a_manifest_lists_plain_paths_inside(tmp_path: Path, paths: list[str], message: str) -> None:
    manifest = write(tmp_path / "out")
    files = [{**manifest.files[0].model_dump(), "path": path} for path in paths]
    (tmp_path / "out" / artifact.MANIFEST).write_text(json.dumps({**manifest.model_dump(), "files": files}))
    with pytest.raises(ArtifactError, match=message) as caught:
        artifact.read(tmp_path / "out", verify=False)
    assert "\n" not in str(caught.value)


def test_files_of_a_draft_are_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "part-1.parquet").write_text("1")
    (tmp_path / "part-0.parquet").write_text("0")
    (tmp_path / "part-2.parquet").symlink_to(tmp_path / "part-0.parquet")
    assert [path.name for path in artifact.files(tmp_path, "part-*.parquet")] == ["part-0.parquet", "part-1.parquet"]


def test_a_directory_without_manifest_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match=r"no manifest.json.*dvc repro"):
        artifact.read(tmp_path / "out")


def test_a_failed_writer_leaves_the_older_artifact_and_no_temporaries(tmp_path: Path) -> None:
    manifest = write(tmp_path / "out")
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        artifact.create(
            tmp_path / "out", stage="example", config=Config(), inputs=(), code=Path(artifact.__file__)
        ) as draft,
    ):
        (draft.path / "half").write_text("x")
        raise RuntimeError("in the middle")
    assert artifact.read(tmp_path / "out") == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / f".out{artifact.TEMPORARY}dead"
    leftover.mkdir()
    other = tmp_path / f".other{artifact.TEMPORARY}live"
    other.mkdir()
    write(tmp_path / "out")
    assert not leftover.exists() and other.exists()


def test_a_later_artifact_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    write(tmp_path / "out")
    later = write(tmp_path / "out", "later")
    assert artifact.read(tmp_path / "out") == later
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_altered_manifest_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "out")
    path = tmp_path / "out" / artifact.MANIFEST
    path.write_text(path.read_text().replace('"stage"', '"stagge"'))
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifact.read(tmp_path / "out")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values))
def test_equal_values_have_equal_digests_in_any_order(value: dict[str, object]) -> None:
    assert digest_of(dict(reversed(list(value.items())))) == digest_of(value)
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)
