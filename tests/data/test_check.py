"""Bad rows go to quarantine with rule and value; too many stop the cycle; both judges of a suite agree."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import artifact
from components.core.artifact import Manifest
from components.core.errors import ConfigError, DataError
from components.core.events import Events, read_events
from components.data.check import check_clean, check_raw
from components.data.clean import CLEAN_SCHEMA, DROPS_SCHEMA, REDACTIONS_SCHEMA
from components.data.config import CheckCleanConfig, CheckRawConfig, CleanConfig
from components.data.contracts.contract import Contract
from components.data.contracts.measures import document_statistics
from components.data.contracts.rules import bounds, parameters_of, read_suite, suite_names, violations
from components.data.documents.document import SCHEMA, ShardWriter, write_table
from components.data.documents.programming_languages import language_of
from tests.data.conftest import document, read_parts, write_raw

GOOD = "def add(a, b):\n    return a + b\n"
# rule, value as it stands in the quarantine, row
BAD: list[tuple[str, str | None, dict[str, object]]] = [
    ("text_missing", None, document(None, "null.py")),
    ("text_empty", "false", document(" \n\t", "white.py")),
    ("id_mismatch", "false", document(GOOD, "forged.py", id="0" * 64)),
    ("id_malformed", "F00", document(GOOD, "malformed.py", id="F00")),
    ("bytes_mismatch", "false", document(GOOD, "bytes.py", bytes=7)),
    ("path_missing", None, document(GOOD + "#", path=None)),  # type: ignore[arg-type]
    ("bytes_out_of_range", "200001", document("#" + "x\n" * 100_000, "large.py")),
    ("nul_characters", "1", document("x = 1\0" + " " * 200, "nul.py")),
    ("decoding_damage", "0.25", document("gr\ufffd\n", "damaged.py")),
    ("control_characters", "0.1", document("\x1b123456789", "binary.py")),
    ("line_too_long", "100001", document("x" * 100_001, "line.py")),
    ("licence_outside", "GPL-3.0-only", document(GOOD + "##", "gpl.py", licence="MIT AND GPL-3.0-only")),
    ("licence_outside", "no licence", document(GOOD + "###", "none.py", licence=None)),
    ("licence_outside", "free beer", document(GOOD + "####", "beer.py", licence="free beer")),
    ("language_missing", None, document(GOOD + "#####", "language.py", language=None)),
    ("language_unknown", "cobol", document(GOOD + "######", "cobol.py", language="cobol")),
]
CHECK = CheckRawConfig(max_document_bytes=200_000, max_quarantined_share=0.5)


def good_rows(count: int) -> list[dict[str, object]]:
    return [document(GOOD + f"x = {number}\n", f"{number}.py") for number in range(count)]


def write_clean(folder: Path, kept: list[dict[str, object]], gone: list[dict[str, object]]) -> dict[str, Path]:
    """The arguments of check_clean: an artifact of rows that stay, with those that went, and what it was made from."""
    paths = {"source": folder / "clean", "checked": folder / "checked", "raw": folder / "raw"}
    write_raw(paths["raw"], [*kept, *gone])
    check_raw(CHECK, source=paths["raw"], out=paths["checked"])
    stays = pl.DataFrame(kept, schema=SCHEMA).with_columns(cluster="id", redactions=pl.lit(0, dtype=pl.Int32))
    drops = pl.DataFrame(gone, schema=SCHEMA).select("id", "path", reason=pl.lit("syntax"), detail=pl.lit("line 1"))
    inputs = [artifact.read(paths["checked"])]
    with artifact.create(
        paths["source"], stage="clean", config=CleanConfig(), inputs=inputs, code=Path(__file__)
    ) as draft:
        writer = ShardWriter(draft.path, CLEAN_SCHEMA, 128_000_000)
        writer.write(stays.sort("id", "path"))
        writer.close()
        write_table(drops.cast(DROPS_SCHEMA), draft.path / "drops.parquet")
        write_table(pl.DataFrame(schema=REDACTIONS_SCHEMA), draft.path / "redactions.parquet")
        draft.rows = dict(writer.rows)
    return paths


def judge_alone(folder: Path, rows: list[dict[str, object]], config: CheckCleanConfig) -> Manifest:
    """check_clean on rows that will not reach its profile: what they were made from is not looked at."""
    write_raw(folder / "clean", rows)
    source = folder / "clean"
    return check_clean(config, source=source, checked=source, raw=source, out=folder / "report")


def test_every_kind_of_bad_row_is_quarantined_with_its_rule_and_value(tmp_path: Path, state: Path) -> None:
    good = good_rows(30)
    write_raw(tmp_path / "raw", [*good, *(row for _, _, row in BAD)])
    manifest = check_raw(CHECK, source=tmp_path / "raw", out=tmp_path / "checked")
    passed, quarantine = read_parts(tmp_path / "checked"), pl.read_parquet(tmp_path / "checked" / "quarantine.parquet")
    assert passed.schema == SCHEMA
    assert sorted(passed["path"]) == sorted(str(row["path"]) for row in good)
    assert passed["id"].to_list() == sorted(passed["id"])
    found = {(row["path"], row["rule"]): row["value"] for row in quarantine.iter_rows(named=True)}
    for rule, value, row in BAD:
        assert found.get((row["path"], rule), "absent") == value, (rule, found)
    assert quarantine.columns[:4] == ["id", "path", "rule", "value"] and set(SCHEMA) <= set(quarantine.columns)
    assert manifest.statistics["passed"] == 30 and manifest.statistics["quarantined"] == len(BAD)
    assert manifest.statistics["quarantined_by_rule"]["licence_outside"] == 3
    assert (state / "docs" / "check_raw" / "index.html").stat().st_size > 1000


def test_a_repeated_row_is_quarantined_and_a_copy_elsewhere_is_not(tmp_path: Path) -> None:
    rows = [*good_rows(9), document(GOOD, "one.py"), document(GOOD, "one.py"), document(GOOD, "two.py")]
    write_raw(tmp_path / "raw", rows)
    check_raw(CHECK, source=tmp_path / "raw", out=tmp_path / "checked")
    quarantine = pl.read_parquet(tmp_path / "checked" / "quarantine.parquet")
    assert quarantine.select("path", "rule").rows() == [("one.py", "row_repeated")] * 2
    assert "two.py" in read_parts(tmp_path / "checked")["path"].to_list()


def test_too_many_bad_rows_stop_the_cycle_in_one_line(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", [*good_rows(8), document("x\0" * 99, "a.py"), document("y\0" * 99, "b.py")])
    config = CheckRawConfig(max_quarantined_share=0.1)
    with pytest.raises(DataError, match=r"2 of 10 documents fail the suite \(nul_characters 2\), more than") as error:
        check_raw(config, source=tmp_path / "raw", out=tmp_path / "checked")
    assert "\n" not in str(error.value) and not (tmp_path / "checked").exists()
    check_raw(CheckRawConfig(max_quarantined_share=0.2), source=tmp_path / "raw", out=tmp_path / "checked")


def test_two_runs_give_one_digest_and_no_times(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", [*good_rows(20), document("x\0" * 99, "nul.py")])
    first = check_raw(CHECK, source=tmp_path / "raw", out=tmp_path / "a")
    second = check_raw(CHECK, source=tmp_path / "raw", out=tmp_path / "b")
    assert first.digest == second.digest
    names = {file.path for file in first.files}
    assert names == {"part-00000.parquet", "quarantine.parquet", "contract.json", "summary.json"}


def test_damaged_input_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", good_rows(3))
    part = tmp_path / "raw" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(artifact.ArtifactError, match=r"part-00000\.parquet: found sha256"):
        check_raw(CHECK, source=tmp_path / "raw", out=tmp_path / "checked")


def test_a_clean_corpus_gets_a_report_without_times(tmp_path: Path, state: Path) -> None:
    config = CheckCleanConfig(min_documents=20)
    paths = write_clean(tmp_path, good_rows(20), [document("x =\n", "syntax.py")])
    manifests = [check_clean(config, **paths, out=tmp_path / name) for name in ("a", "b")]
    assert manifests[0].digest == manifests[1].digest
    report = json.loads((tmp_path / "a" / "contract.json").read_text())
    assert report["success"] is True and report["rows"] == 20
    rules = [each["meta"]["rule"] for each in read_suite("clean")["expectations"]]
    assert [each["rule"] for each in report["expectations"]] == rules
    assert all(each["success"] for each in report["expectations"])
    assert (state / "docs" / "check_clean" / "index.html").exists()
    profile = json.loads((tmp_path / "a" / "profile.json").read_text())
    assert (profile["before"]["documents"], profile["after"]["documents"]) == (21, 20)
    example = {"path": "syntax.py", "detail": "line 1"}
    assert profile["dropped"] == {"syntax": {"documents": 1, "bytes": 4, "examples": [example]}}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (good_rows(19), r"fails its suite clean \(documents 1\); found 19; needed: Enough documents"),
        ([*good_rows(20), document(GOOD, "a.py"), document(GOOD, "b.py")], r"\(id_repeated 2\); first a.py"),
        (
            [*good_rows(20), document("x" * 2000, "long.py")],
            r"\(line_too_long 1\); first long.py \(line_too_long: 2000\)",
        ),
        ([*good_rows(20), document("=" * 200, "rule.py")], r"\(few_alphanumeric 1\); first rule.py"),
    ],
)
def test_a_corpus_that_is_not_clean_blocks(
    tmp_path: Path, state: Path, rows: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        judge_alone(tmp_path, rows, CheckCleanConfig(min_documents=20))
    assert "\n" not in str(error.value) and not (tmp_path / "report").exists()
    told = json.loads((state / "docs" / "check_clean" / "contract.json").read_text())
    assert told["success"] is False and any(not each["success"] for each in told["expectations"])


@pytest.mark.parametrize(("name", "config"), [("raw", CHECK), ("clean", CheckCleanConfig(min_documents=1))])
def test_columns_and_great_expectations_find_the_same_rows(
    name: str, config: CheckRawConfig | CheckCleanConfig
) -> None:
    """The quick judge of explain against the library; table-level rules are the library's alone."""
    frame = pl.DataFrame([*good_rows(5), *(row for _, _, row in BAD)], schema=SCHEMA)
    statistics = document_statistics(frame, config.licences)
    quick = violations(statistics, name, config)
    full = Contract(name, config, Events("check")).judge(statistics).rows
    full = full.filter(~pl.col("rule").is_in(["row_repeated", "id_repeated"]))
    assert full.rows() == quick.rows()
    assert quick.height > 8


@pytest.mark.parametrize(("name", "config"), [("raw", CheckRawConfig()), ("clean", CheckCleanConfig())])
def test_bounds_of_documents_are_parameters(name: str, config: CheckRawConfig | CheckCleanConfig) -> None:
    used = set(parameters_of(read_suite(name)))
    assert used <= set(bounds(config))
    assert set(bounds(config)) - used <= {"licences", "max_quarantined_share", "mostly"}


@pytest.mark.parametrize("name", suite_names())
def test_suites_name_their_rules_once_and_say_what_each_wants(name: str) -> None:
    expectations = read_suite(name)["expectations"]
    rules = [each["meta"]["rule"] for each in expectations]
    assert len(set(rules)) == len(rules)
    assert all(each["notes"].endswith(".") for each in expectations)


def test_a_share_may_fail_where_the_config_says_so(tmp_path: Path, state: Path) -> None:
    """Two of forty rows break a rule: 0.95 of them pass, no more."""
    rows = [*good_rows(38), document("=" * 200, "a.py"), document("-" * 200, "b.py")]
    lenient = CheckCleanConfig(min_documents=20, mostly={"few_alphanumeric": 0.95})
    check_clean(lenient, **write_clean(tmp_path, rows, []), out=tmp_path / "report")
    report = json.loads((tmp_path / "report" / "contract.json").read_text())
    (rule,) = (each for each in report["expectations"] if each["rule"] == "few_alphanumeric")
    assert report["success"] is True and (rule["success"], rule["unexpected_count"]) == (True, 2)
    events, _ = read_events(state / "events" / "manual" / "check_clean.jsonl")
    metrics = {each["name"]: each["value"] for each in events if each["kind"] == "metric"}
    assert metrics["contract/failing/few_alphanumeric"] == 2 and metrics["contract/failed_rules"] == 0
    with pytest.raises(DataError, match=r"few_alphanumeric 2\); first [ab]\.py"):
        judge_alone(tmp_path, rows, CheckCleanConfig(min_documents=20, mostly={"few_alphanumeric": 0.96}))
    with pytest.raises(ConfigError, match=r"few_alphanumerc is not a row-level rule.*did you mean few_alphanumeric\?"):
        Contract("clean", CheckCleanConfig(mostly={"few_alphanumerc": 0.9}), Events("check"))


def test_a_rule_that_too_many_raw_documents_break_stops_the_cycle(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", [*good_rows(8), document("x\0" * 99, "a.py"), document("y\0" * 99, "b.py")])
    config = CheckRawConfig(max_quarantined_share=0.5, mostly={"nul_characters": 0.9})
    with pytest.raises(DataError, match=r"2 of 10 documents fail nul_characters, check_raw\.mostly wants 0\.9"):
        check_raw(config, source=tmp_path / "raw", out=tmp_path / "checked")


@given(st.text(max_size=200))
def test_statistics_agree_with_plain_python(text: str) -> None:
    frame = pl.DataFrame([document(text)], schema=SCHEMA)
    found = document_statistics(frame, ("MIT",)).row(0, named=True)
    lines = text.split("\n")
    assert found["text_bytes"] == len(text.encode())
    assert found["lines"] == len(lines)
    assert found["max_line_characters"] == max(len(line) for line in lines)
    assert found["nul_characters"] == text.count("\0")
    assert found["replacement_share"] == pytest.approx(text.count("\ufffd") / max(1, len(text)))
    assert found["id_match"] is True and found["bytes_match"] is True and found["licence_outside"] is None
    ascii_only = text.isascii()
    if ascii_only and text:
        assert found["alphanumeric_share"] == pytest.approx(sum(map(str.isalnum, text)) / len(text))


def test_an_older_result_stays_when_a_check_fails(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", good_rows(5))
    before = check_raw(CHECK, source=tmp_path / "raw", out=tmp_path / "checked")
    shutil.rmtree(tmp_path / "raw")
    write_raw(tmp_path / "raw", [document("x\0" * 99, "nul.py")])
    with pytest.raises(DataError):
        check_raw(CHECK, source=tmp_path / "raw", out=tmp_path / "checked")
    assert artifact.read(tmp_path / "checked").digest == before.digest


def test_every_language_that_a_path_is_known_by_may_pass() -> None:
    suffixes = [".py", ".js", ".mjs", ".ts", ".tsx", ".java", ".go", ".rs", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs"]
    known = {language_of(f"a{suffix}") for suffix in [*suffixes, ".rb", ".php", ".sh", ".sql", ".md"]}
    assert known == set(CheckRawConfig().languages) == set(CheckCleanConfig().languages)
