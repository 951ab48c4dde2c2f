"""Edits of a Git history through the stages of the data: opted out, redacted and decontaminated as documents are."""

import json
from pathlib import Path

import polars as pl

from components.core import artifact
from components.data import clean, ingest
from components.data.cleaning.decontaminate import read_items
from components.data.config import CleanConfig, IngestConfig
from components.data.documents.document import SCHEMA
from components.data.documents.edit import EDITS, Edit, edit_of, read_edits, text_of
from components.data.sources.config import DirectorySource
from tests.data.conftest import document


def test_an_edit_that_holds_an_evaluation_item_goes() -> None:
    config = CleanConfig()
    suite = Path(config.decontaminate.suites[0])
    item = max(map(json.loads, suite.read_text().splitlines()), key=lambda each: len(each["prompt"]))
    program = item["prompt"] + item["canonical_solution"]
    texts = [
        text_of(Edit(subject="Do it so", before=before, after=after))
        for before, after in (("def f():\n    pass", program), (program, "def f():\n    pass"), ("x = 1", "x = 2"))
    ]
    edits = pl.DataFrame([document(text) for text in texts], schema=SCHEMA)
    kept = clean.clean_edits(edits, config, read_items(config.decontaminate))
    assert kept["text"].to_list() == texts[2:]


def test_a_private_key_goes_from_both_versions_as_a_whole() -> None:
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIEowIBAAKCAQEA' * 4}\n-----END RSA PRIVATE KEY-----"
    versions = [f'def f():\n    return ({number}, """{key}""")' for number in (1, 2)]
    config = CleanConfig()
    edits = pl.DataFrame([document(text_of(Edit(subject="s", before=versions[0], after=versions[1])))], schema=SCHEMA)
    kept = clean.clean_edits(edits, config, read_items(config.decontaminate))
    edit = edit_of(kept["text"][0])
    assert edit is not None and edit.after.count("<KEY_1>") == edit.before.count("<KEY_1>") == 1
    assert "MIIE" not in kept["text"][0]


def test_without_a_history_there_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.py").write_text("x = 1\n")
    ingest.run(IngestConfig(sources=(DirectorySource(path=str(tmp_path / "in")),)), out=tmp_path / "raw")
    assert read_edits(tmp_path / "raw") is None and not artifact.files(tmp_path / "raw", EDITS)
