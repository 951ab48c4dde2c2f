"""The rows of judges, from the file that the stage writes."""

import json
from pathlib import Path

import pytest

from dashboards.report.judges_section import judges
from tests.flows.sample_cycle import JUDGES


def test_a_row_says_what_a_judge_is_worth_and_what_nobody_knows_is_empty(tmp_path: Path) -> None:
    JUDGES.write(tmp_path)
    (row,) = judges(tmp_path)
    cells = {title: (value, detail) for title, value, detail in row.cells}
    assert row.is_left_out and row.outcomes == "101 preferred, 4 tie, 33 inconsistent"
    assert cells["kappa with the verifier"] == ("0.12", "-0.03 to 0.27, n 96")
    assert cells["its own is better"] == ("", "")


def test_programs_alone_have_no_row(tmp_path: Path) -> None:
    (tmp_path / "judges.json").write_text(json.dumps({"judges": []}))
    with pytest.raises(ValueError, match="Programs alone"):
        judges(tmp_path)
