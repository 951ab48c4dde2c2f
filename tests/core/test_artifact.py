"""The contract: manifest last, whole or not at all, digests without times, readers that check what they read."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig, canonical_json, digest_of
from components.core.errors import ArtifactError


class Config(StepConfig):
    size: int = 3


def write(out: Path, content: str = "text", *, run: float = 1.0, inputs: tuple[Manifest, ...] = ()) -> Manifest:
    with artifact.create(out, stage="example", config=Config(), inputs=inputs, code=Path(artifact.__file__)) as draft:
        (draft.path / "nested").mkdir()
        (draft.path / "nested" / "file.txt").write_text(content)
        draft.rows["nested/file.txt"] = 1
        draft.statistics["words"] = len(content.split())
        draft.run["measured"] = run
    assert draft.manifest is not None
    return draft.manifest


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = write(tmp_path / "out")
    assert artifact.read(tmp_path / "out") == manifest
    assert manifest.rows == 1 and manifest.statistics == {"words": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_digest_knows_content_and_lineage_but_no_times_hosts_or_places(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", run=1.0), write(tmp_path / "elsewhere" / "b", run=2.0)
    assert first.digest == second.digest and first.run != second.run
    assert write(tmp_path / "c", "other").digest != first.digest
    assert write(tmp_path / "d", inputs=(first,)).digest != first.digest
    assert str(tmp_path) not in first.model_dump_json()


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    manifest = write(tmp_path / "out")
    path = tmp_path / "out" / "nested" / "file.txt"
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
        assert artifact.sha256_of(path) in said and manifest.files[0].sha256 in said


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
