"""Ingest takes the same documents whatever the order, mixes sources by weight, and says why the rest stays out."""

import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import artifact
from components.core.errors import ConfigError, DataError
from components.data.config import IngestConfig
from components.data.documents.document import SCHEMA, ShardWriter, cut, document_id, document_ids
from components.data.ingest import run
from components.data.intake import intake, selection
from components.data.intake.selection import Selection, rank_limit, ranks, shares
from components.data.intake.spool import Spool
from components.data.sources.config import DirectorySource, JsonlSource
from tests.data.conftest import read_parts

TEXTS = st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=30)


def subset(texts: list[str], max_bytes: int, seed: int = 0) -> set[str]:
    """The texts of one source that enter: offered one by one, decided at the end."""
    selection = Selection(max_bytes, [1.0], [None])
    ids = pl.Series([document_id(text) for text in texts], dtype=pl.String)
    sizes = pl.Series([len(text.encode()) for text in texts], dtype=pl.Int64)
    order = ranks(ids, seed)
    may = [selection.offer(0, order[row : row + 1], sizes[row : row + 1])[0] for row in range(len(texts))]
    limit = rank_limit(order, sizes, selection.shares()[0])
    enters = [rank < limit for rank in order]
    assert all(early for early, late in zip(may, enters, strict=True) if late), "dropped too early"
    return {text for text, take in zip(texts, enters, strict=True) if take}


@given(TEXTS, st.integers(1, 400), st.randoms())
def test_the_subset_does_not_depend_on_the_order_and_fits(texts: list[str], max_bytes: int, random: object) -> None:
    shuffled = sorted(texts, key=lambda _: random.random())  # type: ignore[attr-defined]
    found = subset(texts, max_bytes)
    assert found == subset(shuffled, max_bytes)
    assert sum(len(text.encode()) for text in texts if text in found) <= max_bytes


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=30, unique=True), st.integers(1, 200))
def test_a_larger_subset_holds_the_smaller(texts: list[str], max_bytes: int) -> None:
    assert subset(texts, max_bytes) <= subset(texts, max_bytes + 100)


@given(TEXTS, st.integers(1, 400), st.integers(0, 3))
def test_the_subset_is_taken_in_the_order_of_the_hashes(texts: list[str], max_bytes: int, seed: int) -> None:
    """The rule done plainly: whole groups of equal texts, by hash, until one does not fit."""
    wanted, total = set(), 0
    for text in sorted(set(texts), key=lambda each: hashlib.sha256(f"{seed}:{document_id(each)}".encode()).hexdigest()):
        total += len(text.encode()) * texts.count(text)
        if total > max_bytes:
            break
        wanted.add(text)
    assert subset(texts, max_bytes, seed) == wanted


@given(TEXTS, st.integers(1, 400))
def test_documents_at_the_limit_are_compared_one_by_one(texts: list[str], max_bytes: int) -> None:
    """With a few wide bins, most limits fall within one: the subset is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_BIN_BITS", 2)
        patch.setattr(selection, "NUM_BINS", 4)
        coarse = subset(texts, max_bytes)
    assert coarse == subset(texts, max_bytes)


def test_another_seed_gives_another_subset() -> None:
    texts = [f"text {number}" for number in range(200)]
    assert subset(texts, 500, seed=0) != subset(texts, 500, seed=1)


AMOUNTS = st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 10_000)), min_size=1, max_size=6)


@given(st.integers(0, 30_000), AMOUNTS)
def test_shares_fit_and_nobody_who_wants_more_has_less_than_their_weight(
    total: int, amounts: list[tuple[float, int]]
) -> None:
    weights, limits = [weight for weight, _ in amounts], [limit for _, limit in amounts]
    given_ = shares(total, weights, limits)
    assert all(0 <= got <= limit for got, limit in zip(given_, limits, strict=True))
    assert min(total, sum(limits)) - len(amounts) <= sum(given_) <= total
    levels = [got / weight for got, weight in zip(given_, weights, strict=True)]
    for number, (got, limit) in enumerate(zip(given_, limits, strict=True)):
        if got < limit - 1:  # nobody else has more for their weight than one who was cut off, but for rounding
            assert max(levels) <= (got + 1) / weights[number] + 1e-6


@given(st.integers(1, 5_000), AMOUNTS, st.randoms())
def test_shares_only_fall_while_sources_are_read(total: int, amounts: list[tuple[float, int]], random: object) -> None:
    """The reason that what is beyond the share of the moment can be dropped for good."""
    weights = [weight for weight, _ in amounts]
    found, dropped = [0] * len(amounts), [False] * len(amounts)
    before = shares(total, weights, found)
    for number in sorted(range(len(amounts)), key=lambda _: random.random()):  # type: ignore[attr-defined]
        for _ in range(3):
            found[number] += amounts[number][1] // 3
            now = shares(total, weights, found)
            for each in range(len(amounts)):
                assert now[each] <= before[each] or not dropped[each]
                dropped[each] = dropped[each] or now[each] < found[each]
            before = now


@given(st.lists(st.none() | st.text(max_size=40), max_size=300))
def test_ids_are_the_digests_of_the_texts(texts: list[str | None]) -> None:
    wanted = [None if text is None else document_id(text) for text in texts]
    assert document_ids(pl.Series(texts, dtype=pl.String)).to_list() == wanted


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 100))
def test_cuts_cover_every_row_once_and_only_the_last_is_small(sizes: list[int], limit: int) -> None:
    slices = cut(pl.Series(sizes, dtype=pl.Int64), limit)
    assert [row for piece in slices for row in range(len(sizes))[piece]] == list(range(len(sizes)))
    assert all(sum(sizes[piece]) >= limit for piece in slices[:-1])


def rows(sizes: list[int]) -> pl.DataFrame:
    columns = {name: [str(number) for number in range(len(sizes))] for name in SCHEMA if name != "bytes"}
    return pl.DataFrame({**columns, "bytes": sizes}, schema=SCHEMA)


@given(st.lists(st.integers(0, 9_000_000), max_size=25), st.lists(st.integers(0, 25), max_size=4))
def test_shards_depend_on_the_rows_and_not_on_how_they_arrive(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cuts: list[int]
) -> None:
    digests = []
    for limits in ([], sorted(cuts)):
        directory = tmp_path_factory.mktemp("shards")
        writer = ShardWriter(directory, SCHEMA, 20_000_000)
        edges = [0, *(min(limit, len(sizes)) for limit in limits), len(sizes)]
        for start, stop in itertools.pairwise(edges):
            writer.write(rows(sizes)[start:stop])
        writer.close()
        assert read_parts(directory).equals(rows(sizes))
        assert sum(writer.rows.values()) == len(sizes) and writer.total_bytes == sum(sizes)
        digests.append({path.name: artifact.sha256_of(path) for path in directory.iterdir()})
    assert digests[0] == digests[1]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    root = tmp_path / "sources"
    for name, content in {
        "b.py": b"print('b')\n",
        "package/a.py": "größe = 1\n".encode(),
        "empty.py": b"\n \n",
        "latin.py": b"# gr\xfc\xdfe\n",
        "binary.py": b"\xff\xfe\x00\x01",
        "data.bin": b"\x00",
        ".hidden/c.py": b"print('c')\n",
        "huge.py": b"#" * 20_000,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def directory(path: Path, **more: object) -> DirectorySource:
    return DirectorySource.model_validate({"path": str(path), **more})


def left(raw: Path) -> dict[str, tuple[str, str]]:
    """Reason and detail of what did not enter, by path."""
    rows = pl.read_parquet(raw / "left.parquet")
    assert rows.schema == intake.LEFT_COLUMNS
    return {row["path"]: (row["reason"], row["detail"]) for row in rows.iter_rows(named=True)}


def test_a_directory_becomes_documents_and_reasons(sources: Path, tmp_path: Path) -> None:
    (sources / "gone.py").symlink_to(tmp_path / "nothing")
    config = IngestConfig(sources=(directory(sources, max_document_bytes=10_000),))
    manifest = run(config, out=tmp_path / "raw")
    found = read_parts(tmp_path / "raw")
    assert found.schema == SCHEMA
    assert dict(zip(found["path"], found["text"], strict=True)) == {
        "b.py": "print('b')\n",
        "package/a.py": "größe = 1\n",
    }
    assert found["id"].to_list() == sorted(document_id(text) for text in found["text"])
    assert found["bytes"].to_list() == [len(text.encode()) for text in found["text"]]
    assert set(found["licence"]) == {"LicenseRef-Own"} and set(found["source"]) == {"directory"}
    assert {path: reason for path, (reason, _) in left(tmp_path / "raw").items()} == {
        ".hidden/": "hidden",
        "binary.py": "binary",
        "data.bin": "unknown_language",
        "empty.py": "empty",
        "gone.py": "link_broken",
        "huge.py": "too_large",
        "latin.py": "not_utf8",
    }
    assert sum(manifest.statistics["left_by_reason"].values()) == 7
    assert not list((tmp_path / "raw").glob(".*"))


def test_equal_directories_in_other_places_give_equal_digests(sources: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in sorted(sources.rglob("*"), reverse=True):
        if path.is_file():
            (copy / path.relative_to(sources)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / path.relative_to(sources))
    files = [
        run(IngestConfig(sources=(directory(root),)), out=tmp_path / f"raw-{root.name}").files
        for root in (sources, copy)
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.mkdir(), r"^source directory is empty: .*no files at all"),
        (lambda root: (root.mkdir(), (root / "a.py").write_text(" ")), r"left: 1 empty; the first: a\.py: empty"),
        (lambda root: None, "found nothing, needed a directory; correct its path"),
        (lambda root: root.write_text("x"), "found a file, needed a directory"),
    ],
)
def test_an_empty_source_is_one_clear_line(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "root")  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as error:
        run(IngestConfig(sources=(directory(tmp_path / "root"),)), out=tmp_path / "raw")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "raw").exists() and not list(tmp_path.glob(".raw*"))


def test_a_limit_below_every_document_says_so(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no document fits ingest\.max_bytes 3, .*found 3 documents"):
        run(IngestConfig(sources=(directory(sources),), max_bytes=3), out=tmp_path / "raw")


def write_texts(root: Path, prefix: str, number: int) -> Path:
    """Files of 100 bytes each."""
    root.mkdir()
    for each in range(number):
        (root / f"{prefix}{each}.py").write_text(f"{prefix}{each:06}".ljust(99) + "\n")
    return root


def test_sources_are_mixed_by_weight_and_what_one_lacks_goes_to_the_others(tmp_path: Path) -> None:
    roots = [write_texts(tmp_path / name, name, number) for name, number in (("a", 300), ("b", 300), ("c", 10))]
    three = (
        directory(roots[0], name="a", weight=3.0),
        directory(roots[1], name="b"),
        directory(roots[2], name="c", weight=4.0),
    )
    statistics = run(IngestConfig(sources=three, max_bytes=20_000), out=tmp_path / "raw").statistics
    # c has 1,000 bytes and leaves the rest of its half: 19,000 are shared 3 to 1.
    assert {name: each["bytes"] for name, each in statistics["sources"].items()} == {"a": 14_200, "b": 4_700, "c": 1000}
    assert statistics["not_chosen"] == 610 - 199 and statistics["found_documents"] == 610
    found = read_parts(tmp_path / "raw")
    assert dict(found["source"].value_counts().iter_rows()) == {"a": 142, "b": 47, "c": 10}
    reasons = [reason for reason, _ in left(tmp_path / "raw").values()]
    assert reasons.count("not_chosen") == 411 and len(reasons) == 411

    capped = (three[0].model_copy(update={"max_bytes": 500}), *three[1:])
    statistics = run(IngestConfig(sources=capped, max_bytes=20_000), out=tmp_path / "raw").statistics
    assert {name: each["bytes"] for name, each in statistics["sources"].items()} == {"a": 500, "b": 18_500, "c": 1000}


def test_what_waits_on_disk_stays_small_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same corpus in tiny segments and buckets, compacted again and again, gives the same bytes."""
    rows = "".join(f'{{"text": "{number:06}{"x" * 90}", "licence": "MIT"}}\n' for number in range(9_000))
    (tmp_path / "rows.jsonl").write_text(rows + '{"text": ""}\nbroken\n')
    config = IngestConfig(sources=(JsonlSource(paths=(str(tmp_path / "rows.jsonl"),)),), max_bytes=50_000)
    whole = run(config, out=tmp_path / "whole")
    monkeypatch.setattr(intake, "_FLUSH_BYTES", (10_000, 10_000))
    monkeypatch.setattr(intake, "_BUCKET_BYTES", 5_000)
    monkeypatch.setattr("components.data.sources.jsonl.BATCH_ROWS", 100)
    monkeypatch.setattr(intake, "_LEFT_GROUP_ROWS", 10**9)
    waiting: list[int] = []
    drop = intake.Intake._drop_what_is_too_late

    def watched(self: intake.Intake) -> None:
        drop(self)
        waiting.append(self._waiting_bytes)

    monkeypatch.setattr(intake.Intake, "_drop_what_is_too_late", watched)
    parts = run(config, out=tmp_path / "parts")
    assert whole.files == parts.files
    assert len(waiting) >= 2 and max(waiting) <= 1.1 * config.max_bytes
    found = read_parts(tmp_path / "whole")
    assert found["id"].is_sorted() and found.height == 520


def test_left_rows_beyond_one_group_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_LEFT_GROUP_ROWS", 20)
    root = write_texts(tmp_path / "a", "a", 120)
    run(IngestConfig(sources=(directory(root),), max_bytes=1_000), out=tmp_path / "raw")
    names = {path.name for path in root.iterdir()} - set(read_parts(tmp_path / "raw")["path"])
    assert set(left(tmp_path / "raw")) == names and len(names) == 110


def test_licences_and_opt_outs_leave_documents_out_by_name(tmp_path: Path) -> None:
    rows = [
        '{"text": "one", "path": "a.py", "package": "good/x", "licence": "mit", "author": "Ann <ann@mail.org>"}',
        '{"text": "two", "path": "b.py", "package": "good/x", "licence": "GPL-3.0-only"}',
        '{"text": "three", "path": "c.py", "package": "good/x"}',
        '{"text": "four", "path": "d.py", "package": "out/y", "licence": "MIT"}',
        '{"text": "five", "path": "secret/e.py", "package": "good/x", "licence": "MIT"}',
        '{"text": "six", "path": "f.py", "package": "good/x", "licence": "MIT"}',
        '{"text": "seven", "path": "../../etc/g.py", "package": "good/x", "licence": "MIT"}',
        '{"text": "eight", "path": "h\\u0000\\n.py", "package": "good/x", "licence": "MIT"}',
        '{"text": "nine", "path": "i.py", "package": "good/x", "licence": "MIT"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    entries = [
        "- {author: ann@mail.org}",
        "- {repository: out/*, reason: asked}",
        "- {path: secret/}",
        f"- {{id: {document_id('six')}}}",
    ]
    (tmp_path / "out.yaml").write_text("\n".join(entries))
    source = JsonlSource(paths=(str(tmp_path / "rows.jsonl"),))
    config = IngestConfig(sources=(source,), opt_out=str(tmp_path / "out.yaml"))
    manifest = run(config, out=tmp_path / "raw")
    assert read_parts(tmp_path / "raw")["text"].to_list() == ["nine"]
    assert left(tmp_path / "raw") == {
        "a.py": ("opt_out", "author: ann@mail.org"),
        "b.py": ("copyleft", "GPL-3.0-only"),
        "c.py": ("no_licence", ""),
        "d.py": ("opt_out", "repository: out/*"),
        "secret/e.py": ("opt_out", "path: secret/"),
        "f.py": ("opt_out", f"id: {document_id('six')}"),
        "../../etc/g.py": ("unsafe_path", ""),
        "h\ufffd\ufffd.py": ("unsafe_path", ""),
    }
    assert manifest.statistics["left_by_reason"] == {"copyleft": 1, "no_licence": 1, "opt_out": 4, "unsafe_path": 2}
    assert len(manifest.statistics["opted_out"]) == 4 and set(manifest.statistics["opted_out"].values()) == {1}


def test_an_opt_out_list_that_is_named_must_be_there(sources: Path, tmp_path: Path) -> None:
    config = IngestConfig(sources=(directory(sources),), opt_out=str(tmp_path / "absent.yaml"))
    with pytest.raises(ConfigError, match=r"absent\.yaml: not found"):
        run(config, out=tmp_path / "raw")


def test_two_sources_need_two_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two sources are called directory; give each a name of its own"):
        IngestConfig(sources=(directory(tmp_path), directory(tmp_path)))


def test_a_killed_ingest_leaves_nothing_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    write_texts(tmp_path / "a", "a", 20)
    params = tmp_path / "params.yaml"
    params.write_text(f"ingest: {{sources: [{{kind: directory, path: {tmp_path / 'a'}}}]}}\n")
    command = [sys.executable, "-m", "components.data.ingest", "--params", str(params), "--out", str(tmp_path / "raw")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".raw.writing-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "raw").exists() or artifact.read(tmp_path / "raw")
    assert subprocess.run(command, check=False).returncode == 0
    assert artifact.read(tmp_path / "raw").statistics["documents"] == 20
    assert not list(tmp_path.glob(".raw.writing-*"))


def test_the_command_ends_with_two_for_an_empty_source(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    params = tmp_path / "params.yaml"
    params.write_text(f"ingest:\n  sources: [{{kind: directory, path: {tmp_path / 'nothing'}}}]\n")
    command = [sys.executable, "-m", "components.data.ingest", "--params", str(params), "--out", str(tmp_path / "raw")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ingest: source directory") and done.stderr.count("\n") == 1


def test_a_source_may_come_in_any_order_of_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order a source lists its files in, the artifact has the same bytes."""
    write_texts(tmp_path / "a", "a", 50)
    listed = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            self._entries = sorted(listed(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Sequence["os.DirEntry[str]"]:
            return self._entries

        def __exit__(self, *error: object) -> None: ...

    config = IngestConfig(sources=(directory(tmp_path / "a"),), max_bytes=2_000)
    before = run(config, out=tmp_path / "raw").digest
    monkeypatch.setattr(os, "scandir", Backwards)
    assert run(config, out=tmp_path / "again").digest == before


def test_a_row_that_waits_does_not_keep_its_batch_in_memory(tmp_path: Path) -> None:
    """Columns share their texts: one row of a batch of 10 MB, kept as it is, would keep all 10 MB."""
    frame = pl.DataFrame({"text": [f"{number:04}" * 2500 for number in range(1000)], "bucket": 0})
    spool = Spool(tmp_path / "spool", frame.schema, num_buckets=1, flush_bytes=10**9)
    spool.add(frame.filter(pl.col("text").str.starts_with("0500")))
    held = spool._waiting[0]["text"].chunk(0).buffers()
    assert sum(buffer.size for buffer in held if buffer is not None) < 20_000
    assert spool.read(range(1))["text"].to_list() == ["0500" * 2500]
