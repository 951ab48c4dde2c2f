"""Clean on a real Ray: every row kept or dropped with its reason, the same bytes at any number of tasks."""

import contextlib
import errno
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pyarrow.parquet as pq
import pytest
import ray

from components.core import artifact
from components.core.errors import ArtifactError, DataError, OvernightError
from components.core.events import read_events
from components.data import clean as clean_module
from components.data import ingest
from components.data.check import check_raw
from components.data.clean import CLEAN_SCHEMA, REDACTIONS_SCHEMA, run
from components.data.cleaning.redact import redact_text
from components.data.cleaning.work_pieces import DROPS_SCHEMA
from components.data.config import (
    CheckRawConfig,
    CleanConfig,
    DuplicateConfig,
    FilterConfig,
    IngestConfig,
    RedactConfig,
)
from components.data.documents.canaries import KINDS, canaries, copies_in
from components.data.documents.document import SCHEMA, ShardWriter, document_id
from components.data.documents.edit import EDITS, edit_of
from components.data.sources.config import CanarySource, DirectorySource, GitSource
from components.machine import cluster
from components.machine.cluster import run_tasks
from tests.data.conftest import document, read_parts, write_raw
from tests.data.sources.test_git import run as git
from tests.data.sources.test_git_history import commit, version

pytestmark = pytest.mark.usefixtures("local_ray")


def program(number: int, lines: int = 40) -> str:
    source = random.Random(number)
    return "".join(
        f"value_{source.randrange(10**6)} = call_{source.randrange(10**6)}({line})\n" for line in range(lines)
    )


ORIGINAL = program(0)
NEAR = ORIGINAL.replace("(7)", "(seven)")
PRIVATE = program(1) + "# ann@mail.org at 10.1.2.3, ann@mail.org\n"
ROWS = [
    document(ORIGINAL, "b/original.py"),
    document(ORIGINAL, "a/copy.py", package="q"),
    document(NEAR, "near.py"),
    document(PRIVATE, "private.py"),
    document("x = 1\n", "small.py"),
    document(program(2) + "x = (\n", "broken.py"),
    document(program(3) + f"y = '{'z' * 5000}'\n", "long.py"),
    *(document(program(number), f"{number}.py") for number in range(10, 40)),
]


def clean(tmp_path: Path, name: str, config: CleanConfig | None = None) -> artifact.Manifest:
    if not (tmp_path / "checked").exists():
        write_raw(tmp_path / "checked", ROWS)
    return run(config or CleanConfig(), source=tmp_path / "checked", out=tmp_path / name)


def test_every_document_is_kept_or_dropped_for_a_reason(tmp_path: Path) -> None:
    manifest = clean(tmp_path, "clean")
    kept, drops = read_parts(tmp_path / "clean"), pl.read_parquet(tmp_path / "clean" / "drops.parquet")
    assert kept.schema == CLEAN_SCHEMA and drops.schema == DROPS_SCHEMA
    assert sorted([*kept["path"], *drops["path"]]) == sorted(str(row["path"]) for row in ROWS)
    reasons = {row["path"]: (row["reason"], row["detail"]) for row in drops.iter_rows(named=True)}
    near_kept, near_dropped = (NEAR, ORIGINAL)  # the longer one stays
    assert reasons == {
        "b/original.py": ("exact_duplicate", "a/copy.py"),
        "a/copy.py": ("near_duplicate", document_id(near_kept)),
        "small.py": ("too_small", "6"),
        "broken.py": ("syntax_error", "'(' was never closed (line 41)"),
        "long.py": ("mean_line_too_long", reasons["long.py"][1]),
    }
    assert manifest.statistics["documents"] == len(ROWS) and manifest.statistics["kept"] == kept.height
    assert manifest.statistics["dropped_by_reason"]["near_duplicate"] == 1
    near = kept.row(by_predicate=pl.col("path") == "near.py", named=True)
    assert near["cluster"] == min(document_id(near_kept), document_id(near_dropped))
    assert kept["id"].to_list() == sorted(kept["id"])


def test_text_is_redacted_and_its_spans_are_of_the_original(tmp_path: Path) -> None:
    clean(tmp_path, "clean")
    kept = read_parts(tmp_path / "clean")
    spans = pl.read_parquet(tmp_path / "clean" / "redactions.parquet")
    assert spans.schema == REDACTIONS_SCHEMA
    row = kept.row(by_predicate=pl.col("path") == "private.py", named=True)
    assert row["id"] == document_id(PRIVATE)
    assert row["text"] == redact_text(PRIVATE, RedactConfig())[0]
    assert row["text"].endswith("# <EMAIL_1> at <IP_1>, <EMAIL_1>\n")
    assert row["redactions"] == 3 and row["bytes"] == len(row["text"].encode())
    found = [(PRIVATE[each["start"] : each["end"]], each["placeholder"]) for each in spans.iter_rows(named=True)]
    assert found == [("ann@mail.org", "<EMAIL_1>"), ("10.1.2.3", "<IP_1>"), ("ann@mail.org", "<EMAIL_1>")]
    assert set(spans["id"]) == {row["id"]}
    assert kept.filter(pl.col("redactions") > 0).height == 1


def test_planted_documents_arrive_and_redaction_takes_two_kinds_of_three(tmp_path: Path) -> None:
    """Through ingest and clean as the user configures them; without redaction every secret arrives."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.py").write_text("".join(f"def function_{number}():\n    return {number}\n" for number in range(9)))
    source = CanarySource(count=6, copies=8)
    ingest.run(IngestConfig(sources=(DirectorySource(path=str(own)), source)), out=tmp_path / "raw")
    run(CleanConfig(), source=tmp_path / "raw", out=tmp_path / "clean")
    kept = read_parts(tmp_path / "clean")
    assert Counter(kept["source"]) == {"canaries": 48, "directory": 1}
    assert set(kept.filter(source="canaries")["cluster"].value_counts()["count"]) == {1}
    texts = [kept["text"].to_list()[:20], kept["text"].to_list()[20:]]
    assert copies_in(texts, canaries(9)) == {
        "key": {"documents": 16, "with_secret": 0},
        "email": {"documents": 16, "with_secret": 0},
        "account": {"documents": 16, "with_secret": 16},
    }
    run(CleanConfig(redact=RedactConfig(kinds=())), source=tmp_path / "raw", out=tmp_path / "whole")
    whole = read_parts(tmp_path / "whole")["text"].to_list()
    assert copies_in([whole], canaries(9)) == {kind: {"documents": 16, "with_secret": 16} for kind in KINDS}


SECRET = '{{"mail": "{}@mail.org", "token": "ghp_{}"}}'


def test_edits_go_through_the_stages_and_nothing_private_does(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    commit(root, "Begin with a thing", {"a.py": version(1)})
    commit(root, "Take what Eve wrote", {"a.py": version(2)}, "Eve <eve@mail.org>")
    commit(root, "Ask bob@mail.org for it", {"a.py": version(SECRET.format("bob", "x1Y2z3" * 6))})
    commit(root, "Ask somebody else now", {"a.py": version(SECRET.format("ann", "x1Y2z3" * 6))})
    (tmp_path / "opt-out.yaml").write_text("- author: eve@mail.org\n")
    source = GitSource(url=str(root), licence="MIT", history_commits=10)
    config = IngestConfig(sources=(source,), opt_out=str(tmp_path / "opt-out.yaml"))
    raw = ingest.run(config, out=tmp_path / "raw")
    assert raw.statistics["edits"] == {"number": 2, "left_by_reason": {"opt_out": 1}}
    assert raw.statistics["documents"] == 1 and raw.statistics["opted_out"] == {}
    check_raw(CheckRawConfig(), source=tmp_path / "raw", out=tmp_path / "checked")
    manifest = run(CleanConfig(), source=tmp_path / "checked", out=tmp_path / "clean")
    assert manifest.statistics["edits"] == {"number": 2, "kept": 2}
    edits = [edit_of(text) for text in pl.read_parquet(tmp_path / "clean" / EDITS)["text"]]
    found = {each.subject: each for each in edits if each}
    first, second = found["Ask <EMAIL_1> for it"], found["Ask somebody else now"]
    assert '"<EMAIL_1>", "token": "<KEY_1>"' in first.after and first.before.endswith("return 2")
    assert '"<EMAIL_1>", "token": "<KEY_1>"' in second.before and '"<EMAIL_2>", "token": "<KEY_1>"' in second.after
    again = ingest.run(config, out=tmp_path / "again")
    assert again.digest == raw.digest


def large_rows() -> list[dict[str, object]]:
    """Documents of 1.5 MB in all, near duplicates in each corner of them."""
    rows = [document(program(number, 1000), f"{number}.py") for number in range(100, 150)]
    return [*ROWS, *rows, *(document(str(row["text"]) + "# more\n", f"again/{row['path']}") for row in rows[::7])]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, artifact.Manifest]:
    """A source of many pieces, and what clean makes of it."""
    folder = tmp_path_factory.mktemp("large")
    write_raw(folder / "checked", large_rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(folder / "state"))
        return folder, run(MANY, source=folder / "checked", out=folder / "clean")


# The smallest tasks and shards that there are.
MANY = CleanConfig(task_bytes=100_000, shard_bytes=1_000_000)


def test_the_bytes_do_not_depend_on_how_the_work_is_cut(large: tuple[Path, artifact.Manifest], tmp_path: Path) -> None:
    """The same files from one task, and from many on two workers."""
    folder, many = large
    assert many.statistics["near_duplicates"]["near_pairs"] >= 8
    config = MANY.model_copy(update={"task_bytes": 256_000_000})
    assert run(config, source=folder / "checked", out=tmp_path / "one").files == many.files


def test_shards_are_those_of_one_writer(large: tuple[Path, artifact.Manifest], tmp_path: Path) -> None:
    folder, manifest = large
    writer = ShardWriter(tmp_path, CLEAN_SCHEMA, MANY.shard_bytes)
    writer.write(read_parts(folder / "clean"))
    writer.close()
    shards = {file.path: file.sha256 for file in manifest.files if file.path.startswith("part-")}
    assert len(shards) >= 2
    assert shards == {path.name: artifact.sha256_of(path) for path in tmp_path.iterdir()}


def test_the_order_in_which_workers_finish_changes_nothing(
    large: tuple[Path, artifact.Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = large
    arrived = []

    def run_backwards(*arguments: Any) -> Iterator[tuple[int, Any]]:
        done = sorted(run_tasks(*arguments), key=lambda each: -each[0])
        arrived.append(len(done))
        return iter(done)

    monkeypatch.setattr(clean_module, "run_tasks", run_backwards)
    assert run(MANY, source=folder / "checked", out=tmp_path / "clean").digest == manifest.digest
    assert arrived[0] > 5 and arrived[-1] >= 2


def test_a_killed_worker_changes_nothing(large: tuple[Path, artifact.Manifest], tmp_path: Path) -> None:
    folder, manifest = large
    killed: list[int] = []
    done = threading.Event()

    def kill_one() -> None:
        while not done.is_set() and not killed:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.cmdline()[:1] == ["ray::judge_piece"]:
                        process.kill()
                        killed.append(process.pid)
                        break

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        assert run(MANY, source=folder / "checked", out=tmp_path / "clean").digest == manifest.digest
    finally:
        done.set()
        killer.join()
    assert killed


@pytest.mark.drill
def test_a_killed_driver_leaves_pieces_that_the_next_one_goes_on_from(
    large: tuple[Path, artifact.Manifest], tmp_path: Path, state: Path
) -> None:
    folder, manifest = large
    (tmp_path / "params.yaml").write_text(json.dumps({"clean": MANY.model_dump(mode="json")}))
    where = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    paths = {"--params": tmp_path / "params.yaml", "--source": folder / "checked", "--out": tmp_path / "clean"}
    command = [sys.executable, "-m", "components.data.clean", *(str(each) for pair in paths.items() for each in pair)]
    driver = subprocess.Popen(command, env=os.environ | where, cwd=Path(__file__).parents[2])
    while len(list(state.glob("work/clean/*/0*"))) < 2:
        assert driver.poll() is None, "it ended before it could be killed"
    driver.kill()
    driver.wait()
    (left,) = (path for path in (state / "work" / "clean").iterdir() if path.is_dir())
    cut_short = max(left.glob("0*")) / "bands.npy"
    cut_short.write_bytes(cut_short.read_bytes()[:-1])
    whole = len(list(left.glob("0*"))) - 1
    assert run(MANY, source=folder / "checked", out=tmp_path / "clean").digest == manifest.digest
    notes = [event["text"] for event in read_events(state / "events" / "manual" / "clean.jsonl")[0] if "text" in event]
    found = re.fullmatch(r"(\d+) of (\d+) pieces were judged before; going on", notes[-1])
    assert found and whole <= int(found[1]) < int(found[2])
    assert not list((state / "work" / "clean").iterdir())


def test_switches_switch_off(tmp_path: Path) -> None:
    config = CleanConfig(
        filters=FilterConfig(check_syntax=False, min_document_bytes=0),
        redact=RedactConfig(kinds=()),
        duplicates=DuplicateConfig(near=False),
    )
    manifest = clean(tmp_path, "clean", config)
    assert set(manifest.statistics["dropped_by_reason"]) == {"exact_duplicate", "mean_line_too_long"}
    kept = read_parts(tmp_path / "clean")
    assert (kept["cluster"] == kept["id"]).all() and kept["redactions"].sum() == 0
    assert PRIVATE in kept["text"].to_list()


def test_shortest_path_keeps_the_other_near_duplicate(tmp_path: Path) -> None:
    write_raw(tmp_path / "checked", [document(ORIGINAL, "z.py"), document(NEAR, "a/b.py")])
    clean(tmp_path, "clean", CleanConfig(duplicates=DuplicateConfig(keep=("shortest_path",))))
    assert read_parts(tmp_path / "clean")["path"].to_list() == ["z.py"]


def test_a_corpus_of_which_nothing_stays_is_an_empty_table(tmp_path: Path) -> None:
    write_raw(tmp_path / "checked", [document("x = 1\n", "small.py")])
    manifest = clean(tmp_path, "clean")
    assert manifest.statistics["kept"] == 0
    assert read_parts(tmp_path / "clean").schema == CLEAN_SCHEMA


def test_of_equal_texts_the_better_licence_and_source_stays_and_none_that_its_path_refuses(tmp_path: Path) -> None:
    write_raw(
        tmp_path / "checked",
        [
            document(ORIGINAL, "a/1.py", licence="Apache-2.0", source="web"),
            document(ORIGINAL, "b/2.py", licence="MIT", source="web"),
            document(ORIGINAL, "c/3.py", licence="MIT", source="own"),
            document(NEAR, "near.py", licence="Apache-2.0", source="own"),
            document(program(1), "src/library/mine.py", source="own"),
            document(program(1), "vendor/x.py", source="own"),
        ],
    )
    clean(tmp_path, "clean", CleanConfig(duplicates=DuplicateConfig(sources=("own", "web"))))
    assert read_parts(tmp_path / "clean")["path"].sort().to_list() == ["c/3.py", "src/library/mine.py"]
    drops = pl.read_parquet(tmp_path / "clean" / "drops.parquet")
    assert {(row["path"], row["reason"], row["detail"]) for row in drops.iter_rows(named=True)} == {
        ("a/1.py", "exact_duplicate", "c/3.py"),
        ("b/2.py", "exact_duplicate", "c/3.py"),
        ("near.py", "near_duplicate", document_id(ORIGINAL)),
        ("vendor/x.py", "vendored", "vendor/"),
    }


def test_ids_out_of_order_are_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS, schema=SCHEMA).sort("id", descending=True)
    with pytest.raises(DataError, match=r"part-00000.parquet: ids are null or out of order in row group 0"):
        run(CleanConfig(), source=broken(tmp_path, frame), out=tmp_path / "clean")


def broken(tmp_path: Path, frame: pl.DataFrame, spoil: Callable[[Path], None] = lambda part: None) -> Path:
    """An artifact of row groups of 10 documents that was spoilt before its hashes were taken."""
    out = tmp_path / "checked"
    config = ingest.IngestConfig()
    with artifact.create(out, stage="ingest", config=config, inputs=[], code=Path(ingest.__file__)) as draft:
        part = draft.path / "part-00000.parquet"
        pq.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), part, row_group_size=10)
        spoil(part)
        draft.rows = {part.name: frame.height}
    return out


def spoil_column(part: Path, group: int, name: str) -> None:
    """Overwrite the middle of one column of one row group."""
    metadata = pq.read_metadata(part)
    column = metadata.row_group(group).column(metadata.schema.names.index(name))
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(part.read_bytes())
    middle = start + column.total_compressed_size // 2
    content[middle : start + column.total_compressed_size] = b"\xff" * (start + column.total_compressed_size - middle)
    part.write_bytes(content)


def spoil_footer(part: Path) -> None:
    content = part.read_bytes()
    part.write_bytes(content[:-40] + b"\xff" * 40)


@pytest.mark.parametrize(
    ("spoil", "lost", "named"),
    [
        (lambda part: spoil_column(part, 1, "text"), 10, "paths"),
        (lambda part: spoil_column(part, 1, "id"), 10, "part-00000.parquet#1:"),
        (spoil_footer, 37, "part-00000.parquet#"),
    ],
    ids=["text", "id", "footer"],
)
def test_a_row_group_that_cannot_be_decoded_is_dropped_with_its_reason(
    tmp_path: Path, spoil: Callable[[Path], None], lost: int, named: str
) -> None:
    """It had passed the check of its hash: it was written like that."""
    rows = [row for row in ROWS if row["path"] != "a/copy.py"] + [document(program(99), "99.py")]
    frame = pl.DataFrame(rows, schema=SCHEMA).sort("id", "path")
    manifest = run(CleanConfig(), source=broken(tmp_path, frame, spoil), out=tmp_path / "clean")
    drops = pl.read_parquet(tmp_path / "clean" / "drops.parquet")
    kept = read_parts(tmp_path / "clean")
    unreadable = drops.filter(pl.col("reason") == "unreadable")
    assert manifest.statistics["documents"] == kept.height + drops.height == frame.height
    assert unreadable.height == lost and (unreadable["detail"].str.len_chars() > 10).all()
    if named == "paths":
        assert set(unreadable["path"]) == set(frame["path"][10:20]) and set(unreadable["id"]) == set(frame["id"][10:20])
        assert sorted([*kept["path"], *drops["path"]]) == sorted(frame["path"])
    else:
        assert unreadable["id"].null_count() == lost and unreadable["path"].str.starts_with(named).all()


def test_a_flipped_byte_is_named(tmp_path: Path) -> None:
    clean(tmp_path, "clean")
    part = tmp_path / "checked" / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"part-00000.parquet: found sha256"):
        clean(tmp_path, "again")


@pytest.mark.parametrize("where", ["state", "out"])
def test_a_full_disk_leaves_nothing_and_the_next_run_passes(
    large: tuple[Path, artifact.Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """On a small file system of its own: first the pieces do not fit, then the shards."""
    folder, manifest = large
    small = tmp_path / "small"
    small.mkdir()
    monkeypatch.setenv("OVERNIGHT_STATE", str(small if where == "state" else tmp_path / "state"))
    out = small / "clean" if where == "out" else tmp_path / "clean"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(small)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        with pytest.raises(OSError) as caught:
            run(MANY, source=folder / "checked", out=out)
        assert caught.value.errno == errno.ENOSPC
        assert not list(small.rglob("*.npy")) + list(small.rglob("*.parquet"))
        assert not list(out.parent.glob(".clean.writing-*")) and not out.exists()
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        assert run(MANY, source=folder / "checked", out=out).digest == manifest.digest
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_documents_that_hold_evaluation_items_go_and_are_listed(tmp_path: Path) -> None:
    suite = Path(CleanConfig().decontaminate.suites[0])
    first, second = (json.loads(line) for line in suite.read_text().splitlines()[:2])
    planted = program(50) + first["prompt"] + first["canonical_solution"]
    both = planted.replace("value_", "name_") + "\n\n" + second["prompt"] + second["canonical_solution"]
    write_raw(tmp_path / "checked", [*ROWS, document(planted, "one.py"), document(both, "two.py")])
    manifest = clean(tmp_path, "clean")
    drops = pl.read_parquet(tmp_path / "clean" / "drops.parquet").filter(reason="contaminated")
    assert dict(drops.select("path", "detail").iter_rows()) == {
        "one.py": "short_tasks:short/0 1.0",
        "two.py": "short_tasks:short/0 1.0, short_tasks:short/1 1.0",
    }
    listed = pl.read_parquet(tmp_path / "clean" / "contaminated.parquet")
    assert sorted(listed.select("path", "suite", "task_id", "overlap").iter_rows()) == [
        ("one.py", "short_tasks", "short/0", 1.0),
        ("two.py", "short_tasks", "short/0", 1.0),
        ("two.py", "short_tasks", "short/1", 1.0),
    ]
    assert manifest.statistics["suites"]["short_tasks"] == {
        "sha256": artifact.sha256_of(suite),
        "items": len(suite.read_text().splitlines()),
        "items_too_short": 0,
        "items_found": 2,
        "documents_dropped": 2,
    }
    assert not {"one.py", "two.py"} & set(read_parts(tmp_path / "clean")["path"])


# The two functions are local, so that a worker gets them by value and does not import the tests.
def test_an_exception_in_a_task_arrives_as_it_is() -> None:
    def refuse(item: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f"file {item}")

    with pytest.raises(OSError) as caught:
        list(run_tasks(refuse, [5, 5]))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "file 5")


def test_a_task_that_no_worker_survives_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(item: int) -> None:
        os._exit(item)

    monkeypatch.setattr(cluster, "_MAX_RETRIES", 1)
    with pytest.raises(OvernightError, match=r"every worker died, 2 in all, on item 1 \(WorkerCrashedError"):
        list(run_tasks(die, [1], describe=lambda item: f"item {item}"))
