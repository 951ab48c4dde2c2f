"""Clean on a real Ray: every row kept or dropped with its reason, the same bytes at any number of tasks."""

import random
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from components.core import artifact
from components.data import clean as clean_module
from components.data.clean import CLEAN_SCHEMA, DROPS_SCHEMA, REDACTIONS_SCHEMA, run
from components.data.config import CleanConfig, DuplicateConfig, FilterConfig, RedactConfig
from components.data.documents import document_id
from components.data.redact import redact_text
from tests.data.conftest import document, read_parts, write_raw

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


def test_the_bytes_do_not_depend_on_how_the_work_is_cut(tmp_path: Path) -> None:
    """The same files from one task, from many on two workers, and again."""
    large = [document(program(number, 2000), f"{number}.py") for number in range(100, 112)]
    write_raw(tmp_path / "checked", [*ROWS, *large])
    one = clean(tmp_path, "one", CleanConfig(task_bytes=256_000_000))
    many = clean(tmp_path, "many", CleanConfig(task_bytes=100_000))
    again = clean(tmp_path, "again", CleanConfig(task_bytes=100_000))
    assert one.files == many.files
    assert many.digest == again.digest


def test_the_order_in_which_workers_finish_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = [document(program(number, 2000), f"{number}.py") for number in range(100, 112)]
    write_raw(tmp_path / "checked", [*ROWS, *large])
    config = CleanConfig(task_bytes=100_000)
    first = clean(tmp_path, "first", config)
    run_tasks = clean_module.run_tasks
    arrived = []

    def run_backwards(tasks: list[dict[str, object]], config: CleanConfig) -> Iterator[pl.DataFrame]:
        blocks = sorted(run_tasks(tasks, config), key=lambda block: str(block["id"][0]), reverse=True)
        arrived.extend(str(block["id"][0]) for block in blocks)
        return iter(blocks)

    monkeypatch.setattr(clean_module, "run_tasks", run_backwards)
    assert clean(tmp_path, "second", config).digest == first.digest
    assert len(arrived) > 5 and arrived != sorted(arrived)


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
    clean(tmp_path, "clean", CleanConfig(duplicates=DuplicateConfig(keep="shortest_path")))
    assert read_parts(tmp_path / "clean")["path"].to_list() == ["z.py"]


def test_a_corpus_of_which_nothing_stays_is_an_empty_table(tmp_path: Path) -> None:
    write_raw(tmp_path / "checked", [document("x = 1\n", "small.py")])
    manifest = clean(tmp_path, "clean")
    assert manifest.statistics["kept"] == 0
    assert read_parts(tmp_path / "clean").schema == CLEAN_SCHEMA
