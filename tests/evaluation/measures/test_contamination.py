"""Overlap of what is measured with what was trained on: planted copies, and what must not be taken for one."""

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.evaluation.config import ContaminationConfig, EvaluateConfig
from components.evaluation.measures.contamination import counts, looked_for, overlaps, training_texts
from components.evaluation.measures.functional import built_in_suite
from components.evaluation.measures.model_measures import ITEM_SCHEMA, summarise

CONFIG = ContaminationConfig()
SUITE = built_in_suite("short_tasks")
WHOLE = inspect.getsource(shutil.copytree)
DOCUMENTS = pl.DataFrame({"id": ["aa", "bb", "cc"], "text": [WHOLE, inspect.getsource(json.dumps), "x = 1\n"]})
ITEMS = pl.DataFrame(
    [
        *(("likelihood", each) for each in ("aa", "bb", "cc")),
        *(("completion", each) for each in ("bb:7", "aa:3", "aa:9")),
        *((SUITE.name, task.task_id) for task in SUITE.tasks),
    ],
    schema=["suite", "item"],
    orient="row",
)


def found(training: list[list[str]]) -> dict[tuple[str, str], tuple[float | None, bool]]:
    rows = overlaps(ITEMS, looked_for(DOCUMENTS, [SUITE], training, CONFIG), [SUITE], CONFIG)
    assert rows.select("suite", "item").equals(ITEMS)
    return {(suite, item): (overlap, marked) for suite, item, overlap, marked in rows.iter_rows()}


def long_task() -> int:
    """A task whose prompt has words enough to be looked for."""
    return max(range(len(SUITE.tasks)), key=lambda index: len(SUITE.tasks[index].prompt))


def test_a_planted_copy_is_found_in_every_item_that_it_is_about() -> None:
    task = SUITE.tasks[long_task()]
    planted = f"import os\n\n{task.prompt}    pass\n"
    marked = found([["y = 2\n"], [planted, f"# header\n{WHOLE}\nz = 3\n"]])
    assert marked["likelihood", "aa"] == (1.0, True)
    assert marked["completion", "aa:3"] == marked["completion", "aa:9"] == (1.0, True)
    assert marked[SUITE.name, task.task_id] == (1.0, True)
    assert marked["likelihood", "bb"][1] is marked["completion", "bb:7"][1] is False
    others = [each.task_id for each in SUITE.tasks if each is not task]
    assert not any(marked[SUITE.name, each][1] for each in others)


def test_the_largest_share_in_one_document_counts() -> None:
    """A third of the document in one place and a half in another: about a half, in whichever order they come."""
    lines = WHOLE.splitlines(keepends=True)
    third, half = "".join(lines[: len(lines) // 3]), "".join(lines[len(lines) // 2 :])
    forwards = found([[third], [half]])["likelihood", "aa"]
    assert forwards == found([[half, third]])["likelihood", "aa"]
    assert forwards[0] is not None and 0.3 < forwards[0] < 0.7


def test_nothing_is_said_of_items_too_short_to_look_for() -> None:
    marked = found([["x = 1\n", *DOCUMENTS["text"]]])
    assert marked["likelihood", "cc"] == (None, False)
    told = counts(overlaps(ITEMS, looked_for(DOCUMENTS, [SUITE], [["x = 1\n"]], CONFIG), [SUITE], CONFIG))
    assert told["likelihood"] == {"items": 3, "items_too_short": 1, "items_contaminated": 0}
    assert found([]) == found([["y = 2\n"]])


def test_held_out_documents_are_not_training(tmp_path: Path) -> None:
    DOCUMENTS[:2].write_parquet(tmp_path / "part-00000.parquet")
    DOCUMENTS[2:].write_parquet(tmp_path / "part-00001.parquet")
    assert [*training_texts(tmp_path, pl.Series(["aa", "cc"]))] == [[DOCUMENTS["text"][1]]]


def test_figures_come_with_and_without_contaminated_items() -> None:
    rows = [("m", "likelihood", f"{n}", "bits_per_byte", float(n), 1.0) for n in range(4)]
    items = pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row")
    config = EvaluateConfig(resamples=100)

    def of(*contaminated: str) -> dict[str, float | int]:
        schema = {"suite": pl.String, "item": pl.String}
        marked = pl.DataFrame([("likelihood", each) for each in contaminated], schema=schema, orient="row")
        return summarise(items, config, marked)["m"]["likelihood"]["bits_per_byte"]

    assert "n_clean" not in of()
    assert (of("0")["value"], of("0")["value_clean"], of("0")["n_clean"]) == (1.5, 2.0, 3)
    everything = of("0", "1", "2", "3")
    assert everything["n_clean"] == 0 and "value_clean" not in everything
    assert np.isfinite(everything["value"])
    assert summarise(items, config)["m"]["likelihood"]["bits_per_byte"]["value"] == pytest.approx(1.5)
