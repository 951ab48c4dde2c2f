"""Vocabulary, token files, split: lossless, deterministic, special tokens only where we put them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import ArtifactError, DataError
from components.core.graph.closure import ROOT
from components.data.intake.selection import ranks
from components.tokens import tokenize, vocabulary
from components.tokens.config import TokenizeConfig, VocabularyConfig
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import END_OF_TEXT, END_OF_TEXT_ID, SPECIAL_TOKENS, USER
from components.tokens.shards.split import draw, is_validation
from components.tokens.shards.token_store import SPLITS, TokenStore
from components.tokens.shards.writer import VALIDATION_SCHEMA


class NoConfig(StepConfig):
    """The config of a stage that stands for another one."""


def write_clean(out: Path, rows: pl.DataFrame) -> Path:
    """A data/clean artifact in two parts."""
    with artifact.create(out, stage="clean", config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
        half = len(rows) // 2
        rows[:half].write_parquet(draft.path / "part-00000.parquet")
        rows[half:].write_parquet(draft.path / "part-00001.parquet")
    return out


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten packages of the standard library as clean documents, three to a cluster."""
    library = Path(os.__file__).parent
    names = ("json", "email", "html", "http", "logging", "asyncio", "importlib", "xml", "urllib", "unittest")
    files = sorted(path for name in names for path in (library / name).rglob("*.py") if path.stat().st_size > 200)
    texts = [path.read_text(encoding="utf-8") for path in files]
    rows = pl.DataFrame(
        {
            "id": [f"{number:064x}" for number in range(len(files))],
            "text": texts,
            "path": [path.relative_to(library).as_posix() for path in files],
            "package": "python",
            "version": "3.11",
            "licence": "PSF-2.0",
            "language": "python",
            "source": "python-environment",
            "bytes": [len(text.encode()) for text in texts],
            "cluster": [f"{number - number % 3:064x}" for number in range(len(files))],
            "redactions": pl.Series([0] * len(files), dtype=pl.Int32),
        }
    )
    return write_clean(tmp_path_factory.mktemp("clean") / "clean", rows)


@pytest.fixture(scope="session")
def tokenizer_dir(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of 1,024 learned by the stage."""
    out = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    vocabulary.run(VocabularyConfig(vocabulary_size=1024, sample_bytes=500_000), source=clean, report=clean, out=out)
    return out


@pytest.fixture(scope="session")
def codec(tokenizer_dir: Path) -> TextCodec:
    return TextCodec(tokenizer_dir)


@given(st.text())
@example(END_OF_TEXT)
@example(f"{USER}\n\t \r\n  x = '{END_OF_TEXT}'<|end|><|fim_")
@example("\u2028\x00\ufeff 𝕏 é e\u0301 \U0010ffff")
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_and_holds_no_special_token(codec: TextCodec, text: str) -> None:
    tokens = codec.encode(text)
    assert codec.decode(tokens, skip_special_tokens=False) == text
    assert min(tokens, default=len(SPECIAL_TOKENS)) >= len(SPECIAL_TOKENS)
    assert codec.encode_batch([text, "x"])[0] == tokens


@given(st.lists(st.sampled_from(["x", "_y", " ", "\t", "\n", "\r\n", "1", "é", "(", "'"]), max_size=20), st.data())
@settings(max_examples=200, deadline=None)
def test_line_ends_and_indentations_are_boundaries(codec: TextCodec, pieces: list[str], data: st.DataObject) -> None:
    """A prompt that ends after a line's end or before the first word of a line has the tokens of the whole text."""
    before = "".join(pieces) + "a\n" + " " * data.draw(st.integers(0, 9), label="indentation")
    after = data.draw(st.sampled_from(["return", "@x", "1", "é"]), label="after")
    assert codec.encode(before) + codec.encode(after) == codec.encode(before + after)


def test_digits_stand_alone(codec: TextCodec) -> None:
    assert len(codec.encode("1234567890")) == 10


def test_special_tokens_have_their_fixed_ids(tokenizer_dir: Path) -> None:
    added = json.loads((tokenizer_dir / "tokenizer.json").read_text())["added_tokens"]
    assert [(token["id"], token["content"], token["special"]) for token in added] == [
        (index, name, True) for index, name in enumerate(SPECIAL_TOKENS)
    ]
    fixed = ["endoftext", "fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "system", "user", "assistant", "end"]
    assert [name.strip("<|>") for name in SPECIAL_TOKENS[:9]] == fixed
    assert len(SPECIAL_TOKENS) == 16


def test_transformers_reads_the_same_tokens(tokenizer_dir: Path, codec: TextCodec) -> None:
    transformers = pytest.importorskip("transformers")  # here, because it takes seconds and no other test needs it
    theirs = transformers.AutoTokenizer.from_pretrained(tokenizer_dir)
    text = "def f(x):\n    return x + 42  # é\n"
    assert theirs(text)["input_ids"] == codec.encode(text)
    assert (theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (END_OF_TEXT_ID, 4, 1024)
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    rendered = theirs.apply_chat_template(chat, tokenize=False)
    assert rendered == "<|user|>hi<|end|><|assistant|>yo<|end|>"
    assert theirs(rendered)["input_ids"] == [6, *codec.encode("hi"), 8, 7, *codec.encode("yo"), 8]


def test_same_bytes_at_any_number_of_threads(clean: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    """As commands with three threads and another hash seed, as functions here: equal digests of both artifacts."""
    params, out = tmp_path / "params.yaml", tmp_path / "out"
    params.write_text("vocabulary: {vocabulary_size: 1024, sample_bytes: 500000}\ntokenize: {chunk_bytes: 300000}\n")
    environment = {**os.environ, "RAYON_NUM_THREADS": "3", "OVERNIGHT_STATE": str(tmp_path / "state")}
    for stage, *options in (
        ("vocabulary", "--report", str(clean), "--out", str(out / "tokenizer")),
        ("tokenize", "--tokenizer", str(out / "tokenizer"), "--out", str(out / "tokens")),
    ):
        command = [sys.executable, "-m", f"components.tokens.{stage}", "--params", str(params)]
        subprocess.run([*command, "--source", str(clean), *options], check=True, cwd=ROOT, env=environment)
    assert artifact.read(out / "tokenizer").digest == artifact.read(tokenizer_dir).digest
    here = tokenize.run(
        TokenizeConfig(chunk_bytes=300_000), source=clean, tokenizer=tokenizer_dir, out=tmp_path / "here"
    )
    assert artifact.read(out / "tokens").digest == here.digest


def test_documents_of_a_source_lie_together(clean: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    rows = pl.concat([pl.read_parquet(path) for path in sorted(clean.glob("part-*.parquet"))]).head(60)
    rows = rows.with_columns(source=pl.when(pl.int_range(60) % 3 == 0).then(pl.lit("notes")).otherwise(pl.lit("code")))
    mixed = write_clean(tmp_path / "clean", rows)
    config = TokenizeConfig(chunk_bytes=100_000, validation_fraction=0.2, repository_share=0.0)
    manifest = tokenize.run(config, source=mixed, tokenizer=tokenizer_dir, out=tmp_path / "tokens")
    codec, num_found = TextCodec(tokenizer_dir), 0
    for split in SPLITS:
        store = TokenStore(tmp_path / "tokens", split)
        table = pl.read_parquet(tmp_path / "tokens" / f"{split}.documents.parquet")
        assert table.sort("source", "id", maintain_order=True).equals(table)
        starts = store.offsets[:-1]
        for source in store.sources:
            inside = (starts >= source.start) & (starts < source.stop)
            assert table["source"].filter(inside).unique().to_list() == [source.name]
        for row, identity in enumerate(table["id"].to_list()):
            tokens = store.read(int(store.offsets[row]), int(store.offsets[row + 1]) - 1)
            assert codec.decode(tokens.tolist()) == rows.filter(pl.col("id") == identity)["text"].item()
            num_found += 1
    assert num_found == 60
    counts = {each.name: each.stop - each.start for each in TokenStore(tmp_path / "tokens", "train").sources}
    assert manifest.statistics["train_tokens_by_source"] == counts and list(counts) == ["code", "notes"]


def test_too_little_text_for_the_vocabulary(tmp_path: Path) -> None:
    rows = pl.DataFrame({"id": ["a", "b"], "text": ["x = 1\n", "y = 2\n"], "bytes": [6, 6]})
    rows = rows.with_columns(source=pl.lit("s"), language=pl.lit("python"))
    source = write_clean(tmp_path / "clean", rows)
    with pytest.raises(DataError, match=r"12 bytes of text give \d+ tokens, needed 4096; .*vocabulary_size to at most"):
        vocabulary.run(VocabularyConfig(), source=source, report=source, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sample_is_whole_documents_up_to_its_size() -> None:
    rows = pl.DataFrame({"id": [f"{number}" for number in range(1000)], "bytes": 10, "source": "s", "language": "go"})
    chosen = vocabulary.sample(rows, 2_000, seed=0)
    assert rows["bytes"].filter(chosen).sum() == 2_000
    assert (vocabulary.sample(rows, 2_000, seed=1) != chosen).any()
    assert vocabulary.sample(rows, 10**9, seed=0).all()


def test_sample_takes_from_every_language_of_every_source_its_share() -> None:
    rows = pl.DataFrame({"id": [f"{number}" for number in range(1000)], "bytes": 10}).with_columns(
        source=pl.when(pl.int_range(1000) < 700).then(pl.lit("a")).otherwise(pl.lit("b")),
        language=pl.when(pl.int_range(1000) % 100 == 7).then(None).otherwise(pl.lit("go")),
    )
    rows = pl.concat([rows, pl.DataFrame([["one", 3, "c", "sql"]], schema=rows.schema, orient="row")])
    taken = rows.filter(vocabulary.sample(rows, 2_000, seed=0)).group_by("source", "language").agg(pl.len())
    shares = {("a", "go"): 139, ("a", None): 2, ("b", "go"): 60, ("b", None): 1, ("c", "sql"): 1}
    assert {row[:2]: row[2] for row in taken.iter_rows()} == shares


def test_indentations_are_one_token(tokenizer_dir: Path, codec: TextCodec) -> None:
    runs = artifact.read(tokenizer_dir).statistics["space_runs"]
    assert {4, 8, 12, 16} <= set(runs)
    for spaces in runs:
        assert len(codec.encode("\n" + " " * spaces + "x")) == 3


@pytest.fixture(scope="session")
def tokens(clean: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokens") / "tokens"
    config = TokenizeConfig(validation_fraction=0.2, chunk_bytes=100_000, shard_tokens=100_003, repository_share=0.0)
    tokenize.run(config, source=clean, tokenizer=tokenizer_dir, out=out)
    return out


def test_token_files_hold_every_document_once(clean: Path, tokens: Path, codec: TextCodec) -> None:
    texts = dict(pl.read_parquet(clean / "part-*.parquet").select("id", "text").iter_rows())
    seen = []
    for split in SPLITS:
        store = TokenStore(tokens, split)
        documents = pl.read_parquet(tokens / f"{split}.documents.parquet")
        assert {shard.dtype for shard in store.shards} == {np.dtype(np.uint16)}
        assert store.num_documents == len(documents)
        for index, row in enumerate(documents.iter_rows(named=True)):
            found = store.document(index)
            assert found[-1] == END_OF_TEXT_ID
            assert codec.decode(found[:-1].tolist(), skip_special_tokens=False) == texts[row["id"]]
            assert (len(found), len(texts[row["id"]].encode())) == (row["tokens"], row["bytes"])
        seen += documents["id"].to_list()
        assert documents["id"].is_sorted()
    assert sorted(seen) == sorted(texts)


def test_files_of_a_package_pass_the_contract(clean: Path, tokens: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    """The same documents in the same splits; held-out ones to the byte, and training ones with their paths beside."""
    config = TokenizeConfig(validation_fraction=0.2, chunk_bytes=100_000, shard_tokens=100_003, repository_share=1.0)
    manifest = tokenize.run(config, source=clean, tokenizer=tokenizer_dir, out=tmp_path / "tokens")
    assert manifest.statistics["repository_documents"] > manifest.statistics["repository_groups"] > 10
    for name in ("validation-00000.tokens.npy", "validation.documents.parquet", "validation.parquet"):
        assert (tmp_path / "tokens" / name).read_bytes() == (tokens / name).read_bytes()
    alone, grouped = (pl.read_parquet(each / "train.documents.parquet") for each in (tokens, tmp_path / "tokens"))
    columns = ["id", "bytes", "cluster", "language"]
    assert grouped.sort("id").select(columns).equals(alone.sort("id").select(columns))
    more = grouped["encoded_bytes"].sum() - alone["encoded_bytes"].sum()
    paths = grouped.filter(pl.col("encoded_bytes") > pl.col("bytes"))["path"]
    assert more == (paths.str.len_bytes() + 1).sum() and len(paths) == manifest.statistics["repository_documents"]


def test_validation_is_whole_clusters(tokens: Path) -> None:
    train, validation = (pl.read_parquet(tokens / f"{split}.documents.parquet") for split in SPLITS)
    assert not set(train["cluster"]) & set(validation["cluster"])
    rows = pl.read_parquet(tokens / "validation.parquet")
    assert rows["id"].to_list() == validation["id"].to_list()
    assert rows.schema == VALIDATION_SCHEMA


def test_statistics_agree_with_the_files(tokens: Path, tokenizer_dir: Path) -> None:
    stated = artifact.read(tokens).statistics
    stores = {split: TokenStore(tokens, split) for split in SPLITS}
    assert (stated["train_tokens"], stated["validation_tokens"]) == tuple(stores[each].num_tokens for each in SPLITS)
    assert stated["tokenizer_digest"] == artifact.read(tokenizer_dir).digest
    assert stated["vocabulary_size"] == 1024
    total = sum(pl.read_parquet(tokens / f"{split}.documents.parquet")["bytes"].sum() for split in SPLITS)
    assert stated["bytes_per_token"] == pytest.approx(total / sum(s.num_tokens for s in stores.values()), abs=1e-6)


@given(st.sets(st.text(min_size=1), min_size=1, max_size=30), st.integers(0, 5), st.floats(0.01, 0.99))
def test_split_depends_on_the_cluster_alone(names: set[str], seed: int, fraction: float) -> None:
    """Alone, in company, repeated or reordered: a cluster lands on the same side."""
    together = pl.Series(sorted(names) * 2)
    alone = [is_validation(pl.Series([name]), fraction, seed).item() for name in sorted(names)]
    assert is_validation(together, fraction, seed).to_list() == alone * 2


def test_split_holds_out_the_fraction() -> None:
    names = pl.Series([f"{number:064x}" for number in range(20_000)])
    assert is_validation(names, 0.04, 0).mean() == pytest.approx(0.04, abs=0.005)
    assert is_validation(names, 0.04, 0).to_list() != is_validation(names, 0.04, 1).to_list()
    # Stated once and for all: another value would move documents between the splits of existing corpora.
    assert draw("0" * 64, 0, "validation") == pytest.approx(0.900771, abs=1e-6)


def test_split_does_not_know_which_documents_were_taken_in() -> None:
    """Ingest takes the lowest hashes too: a corpus of a tenth of the source must not lie on one side."""
    source = pl.Series([f"{number:064x}" for number in range(50_000)])
    taken = source.gather(ranks(source, seed=0).arg_sort()[: len(source) // 10])
    assert len(taken) == len(source) // 10
    assert is_validation(taken, 0.04, 0).mean() == pytest.approx(0.04, abs=0.01)


def test_empty_split_is_refused(clean: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leave none for validation at tokenize\.validation_fraction 1e-09"):
        config = TokenizeConfig(validation_fraction=1e-9)
        tokenize.run(config, source=clean, tokenizer=tokenizer_dir, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_codec_names_the_file_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        TextCodec(tmp_path)
