"""Objects come in whole, in the version that was listed, whatever the network does; a rerun reads none again."""

import gzip
import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.core.errors import DataError
from components.data.config import IngestConfig
from components.data.ingest import run
from components.data.sources import s3
from components.data.sources.config import S3Source
from components.data.sources.reading import objects
from components.data.sources.reading.document_batch import Batch
from components.machine.object_store import s3_client
from tests.data.conftest import read_parts
from tests.data.sources.faulty_s3 import Faults, Spoil, faulty_s3

BUCKET = "overnight"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Any, str, Faults]]:
    """A client of the server itself, the address of the proxy before it, and the proxy's faults."""
    with pytest.MonkeyPatch.context() as patch, faulty_s3() as (direct, proxy, faults):
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{name}", value)
        client = s3_client(BUCKET, direct, connections=16)
        client.create_bucket(Bucket=BUCKET)
        yield client, proxy, faults


class Place:
    """A prefix of the test's own: put objects there, read them through the proxy."""

    def __init__(self, client: Any, prefix: str, faults: Faults) -> None:
        self.client, self.prefix, self.faults = client, prefix, faults

    def put(self, contents: dict[str, bytes]) -> None:
        for key, content in contents.items():
            self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}{key}", Body=content)

    def source(self, **parameters: Any) -> S3Source:
        values = {"licence": "MIT", "range_bytes": 100_000} | parameters
        return S3Source(bucket=BUCKET, prefix=self.prefix, **values)

    def read(self, **parameters: Any) -> tuple[dict[str, str], dict[str, str]]:
        """Texts by path, and reasons by path of what was left."""
        return collected(s3.read(self.source(**parameters)))

    def reads(self) -> int:
        """How many requests for objects there have been."""
        return sum(method == "GET" and path.startswith(f"/{BUCKET}/") for method, path, _ in self.faults.requests)


def collected(batches: Iterator[Batch]) -> tuple[dict[str, str], dict[str, str]]:
    texts: dict[str, str] = {}
    left: dict[str, str] = {}
    for batch in batches:
        texts.update(batch.documents.select("path", "text").iter_rows())
        left.update(batch.left.select("path", "reason").iter_rows())
    return texts, left


@pytest.fixture
def place(servers: tuple[Any, str, Faults], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    client, proxy, faults = servers
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
    monkeypatch.setattr(objects, "_FIRST_PAUSE_SECONDS", 0.01)
    faults.requests.clear()
    yield Place(client, f"{tmp_path.name}/", faults)
    faults.pending.clear()


def code(size: int, seed: int = 0) -> bytes:
    return b"# " + random.Random(seed).randbytes(size // 2).hex().encode() + b"\n"


def parquet(**columns: list[object]) -> bytes:
    target = io.BytesIO()
    pl.DataFrame(columns).write_parquet(target)
    return target.getvalue()


def test_files_and_tables_come_in_under_their_keys(place: Place) -> None:
    """Small and large, plain and compressed: each as the source of its kind would read it."""
    large = code(650_000)
    lines = b"".join(json.dumps({"text": f"line {n}", "path": f"l{n}.py"}).encode() + b"\n" for n in range(3))
    place.put(
        {
            "a.py": b"print('a')\n",
            "deep/large.py": large,
            "table.parquet": parquet(text=["one", "two"], path=["t1.py", "t2.py"]),
            "lines.jsonl": lines,
            "more/lines.jsonl.gz": gzip.compress(lines.replace(b"l", b"m")),
            "folder/": b"",
            "empty.py": b"",
            "image.png": b"\x89PNG",
            "wrong.py": b"\xff\xfe",
            ".hidden.py": b"x = 1",
        }
    )
    batches = list(s3.read(place.source()))
    texts, left = collected(iter(batches))
    assert texts == {
        "a.py": "print('a')\n",
        "deep/large.py": large.decode(),
        "t1.py": "one",
        "t2.py": "two",
        "empty.py": "",
        **{f"l{n}.py": f"line {n}" for n in range(3)},
        **{f"{n}.py".replace(str(n), f"m{n}"): f"mine {n}" for n in range(3)},
    }
    assert left == {"image.png": "unknown_language", "wrong.py": "not_utf8", ".hidden.py": "hidden"}
    extents = [extent for _, path, extent in place.faults.requests if path.endswith("large.py") and extent]
    assert sorted(extents)[:2] == ["bytes=0-99999", "bytes=100000-199999"] and len(extents) == 7
    versions = {row["path"]: row["version"] for batch in batches for row in batch.documents.iter_rows(named=True)}
    head = place.client.head_object(Bucket=BUCKET, Key=f"{place.prefix}a.py")
    assert versions["a.py"] == head["ETag"].strip('"'), "the version of a file is what was read of it"


def test_many_small_objects_come_in_once_each_and_in_the_order_of_their_keys(place: Place) -> None:
    names = [f"{number:03}.py" for number in range(60)]
    place.put({name: f"print({name!r})\n".encode() for name in names})
    paths = [path for batch in s3.read(place.source()) for path in batch.documents["path"]]
    assert paths == names
    assert place.reads() == 60


def test_keys_that_climb_are_names_and_never_places(place: Place, tmp_path: Path, state: Path) -> None:
    place.put({"../../x.py": b"x = 1\n", "/etc/passwd.py": b"x = 2\n", "a/../b.py": b"x = 3\n", "fine.py": b"x = 4\n"})
    before = {path for path in tmp_path.rglob("*") if state not in path.parents}
    texts, left = place.read()
    assert left == {"../../x.py": "unsafe_path", "a/../b.py": "unsafe_path"}
    assert set(texts) == {"/etc/passwd.py", "fine.py"}, "ingest refuses the first of these"
    assert {path for path in tmp_path.rglob("*") if state not in path.parents} - before <= {state}
    config = IngestConfig(sources=(place.source(),))
    manifest = run(config, out=tmp_path / "raw")
    assert read_parts(tmp_path / "raw")["path"].to_list() == ["fine.py"]
    assert manifest.statistics["left_by_reason"]["unsafe_path"] == 3


@pytest.mark.parametrize("how", ["unavailable", "cut", "short", "flipped"])
def test_a_fault_that_passes_leaves_no_trace(place: Place, how: Spoil) -> None:
    contents = {"small.py": code(5_000), "large.py": code(450_000, seed=1)}
    place.put(contents)
    place.faults.spoil("small.py", how, 1)
    place.faults.spoil("large.py", how, 1)
    texts, left = place.read()
    assert texts == {name: content.decode() for name, content in contents.items()} and left == {}
    assert not place.faults.pending


@pytest.mark.parametrize("how", ["short", "flipped"])
def test_what_always_comes_damaged_is_left_as_corrupt(place: Place, how: Spoil) -> None:
    place.put({"small.py": code(5_000), "large.py": code(250_000, seed=1), "fine.py": b"x = 1\n"})
    place.faults.spoil("small.py", how, 50)
    place.faults.spoil("large.py", how, 50)
    batches = list(s3.read(place.source()))
    texts, left = collected(iter(batches))
    assert left == {"small.py": "corrupt", "large.py": "corrupt"} and set(texts) == {"fine.py"}
    details = [detail for batch in batches for detail in batch.left["detail"]]
    assert all("found" in detail or "did not match" in detail for detail in details), details


def test_an_object_that_changes_while_it_is_read_is_left_as_changed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overwritten, or removed, after the listing; the large one between its ranges."""
    place.put({"large.py": code(450_000), "gone.py": b"x = 1\n", "small.py": b"x = 1\n", "still.py": b"x = 2\n"})
    listed = objects.Bucket.objects

    def list_then_change(self: objects.Bucket, prefix: str) -> list[objects.Object]:
        found = listed(self, prefix)
        place.put({"small.py": b"x = 3\n"})
        place.client.delete_object(Bucket=BUCKET, Key=f"{place.prefix}gone.py")
        return found

    part, parts = objects.Bucket.read, []

    def change_between_ranges(self: objects.Bucket, wanted: objects.Object, start: int, stop: int) -> Any:
        if wanted.key.endswith("large.py"):
            parts.append(start)
            if len(parts) == 3:
                place.put({"large.py": code(450_000, seed=2)})
        return part(self, wanted, start, stop)

    monkeypatch.setattr(objects.Bucket, "objects", list_then_change)
    monkeypatch.setattr(objects.Bucket, "read", change_between_ranges)
    texts, left = place.read(threads=1)
    assert left == {"large.py": "changed", "gone.py": "changed", "small.py": "changed"}
    assert texts == {"still.py": "x = 2\n"}


def test_a_rerun_reads_only_what_is_missing_and_success_forgets(place: Place, tmp_path: Path, state: Path) -> None:
    """An outage in the middle fails in one line; the same command converges; then nothing is kept."""
    place.put({f"{number:02}.py": code(1_000, number) for number in range(20)} | {"large.py": code(450_000)})
    place.faults.spoil("19.py", "cut", 100)
    config = IngestConfig(sources=(place.source(threads=1),))
    with pytest.raises(DataError, match=r"19\.py: cannot be read: .*IncompleteRead.*; run it again") as error:
        run(config, out=tmp_path / "raw")
    assert "\n" not in str(error.value) and not (tmp_path / "raw").exists()
    place.faults.pending.clear()
    place.faults.requests.clear()
    run(config, out=tmp_path / "raw")
    asked = {path.rpartition("/")[2] for method, path, _ in place.faults.requests if method == "GET"}
    assert asked <= {BUCKET, "", "19.py", "large.py"} and "19.py" in asked
    assert read_parts(tmp_path / "raw").height == 21
    assert not list((state / "objects").rglob("*")), "what waited for a rerun is gone"


@pytest.mark.parametrize("damage", ["flip", "truncate", "part"])
def test_a_damaged_file_of_an_earlier_run_is_read_again(place: Place, state: Path, damage: str) -> None:
    content = code(450_000)
    place.put({"large.py": content})
    place.read()
    (kept,) = (path for path in (state / "objects").rglob("*") if path.is_file())
    if damage == "part":
        kept.rename(kept.with_name(f"{kept.name.partition('-')[0]}.part"))
    else:
        kept.write_bytes(content[:-1] + (b"x" if damage == "flip" else b""))
    reads = place.reads()
    assert place.read() == ({"large.py": content.decode()}, {})
    assert place.reads() == 2 * reads
    assert len([path for path in (state / "objects").rglob("*") if path.is_file()]) == 1


def test_what_is_kept_is_bounded(place: Place, state: Path) -> None:
    place.put({f"{number}.py": code(1_000, number) for number in range(10)})
    place.read(keep_bytes=3_500)
    assert len([path for path in (state / "objects").rglob("*") if path.is_file()]) == 3


def test_the_digest_does_not_depend_on_threads_or_ranges(place: Place, tmp_path: Path) -> None:
    place.put({f"{number}.py": code(1_000 * number, number) for number in range(1, 12)})
    files = [
        run(IngestConfig(sources=(place.source(threads=threads, range_bytes=size),)), out=tmp_path / str(threads)).files
        for threads, size in ((1, 1_000_000), (8, 3_000))
    ]
    assert files[0] == files[1]


def test_a_bucket_that_is_not_there_is_one_line(place: Place) -> None:
    with pytest.raises(DataError, match=r"^s3://absent/x: cannot be listed: .*NoSuchBucket.*; correct") as error:
        list(s3.read(S3Source(bucket="absent", prefix="x")))
    assert "\n" not in str(error.value)


def test_files_of_other_runs_are_told_apart(tmp_path: Path) -> None:
    """Equal keys of two buckets, and two versions of one key, have files of their own."""
    files = objects.Files(tmp_path / "files")
    made = []
    for place_, etag, content in (("s3://a/k", '"1"', b"1"), ("s3://b/k", '"1"', b"2"), ("s3://a/k", '"2"', b"3")):
        wanted = objects.Object(key="k", etag=etag, bytes=1)
        files.temporary(place_, wanted).write_bytes(content)
        made.append((place_, wanted, files.put(files.temporary(place_, wanted), wanted), content))
    again = objects.Files(tmp_path / "files")
    for place_, wanted, path, content in made:
        assert again.get(place_, wanted) == path and path.read_bytes() == content
    assert os.listdir(tmp_path) == ["files"]  # noqa: PTH208


def test_forgetting_stays_in_its_folder(state: Path) -> None:
    (state / "objects").mkdir(parents=True)
    (state / "mlflow.db").write_bytes(b"not ours")
    for name in ("..", ".", ""):
        s3.forget(S3Source(name=name, bucket=BUCKET))
    assert (state / "mlflow.db").exists() and (state / "objects").exists()
