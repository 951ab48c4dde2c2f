"""Groups of files of a package: who is in them, and that every document keeps its own tokens."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.core.errors import DataError
from components.data.documents.canaries import PACKAGE as CANARIES
from components.tokens import vocabulary
from components.tokens.config import TokenizeConfig
from components.tokens.encoding.encoder import Encoder
from components.tokens.encoding.special import END_OF_TEXT_ID, FILE_SEP_ID
from components.tokens.encoding.token_contract import token_statistics
from components.tokens.repository.groups import groups_of, path_lines
from components.tokens.repository.writer import DocumentWriter
from components.tokens.shards.token_store import TokenStore
from components.tokens.shards.writer import Output

MODULES = ("base", "middle", "top")


def corpus() -> pl.DataFrame:
    """Two packages of three modules, the last importing the others, in two sources; a held-out module, near duplicates,
    a canary and a document of no package."""
    rows = [
        (
            package,
            f"{package}/{name}.py",
            f"from {package} import {other}\nvalue_{number} = {number}\n",
            f"{package}{name}",
        )
        for package in ("ants", "bees")
        for number, (name, other) in enumerate(zip(MODULES, ("os", "base", "middle"), strict=True))
    ]
    rows += [
        ("ants", "ants/held.py", "from ants import top\n", "held"),
        ("ants", "ants/copy.py", "import os\nvalue_0 = 0 \n", "antsbase"),
        (CANARIES, "key/0.py", "KEY = 1\n", "canary 0"),
        (CANARIES, "key/1.py", "KEY = 1 \n", "canary 1"),
        (None, "notes.md", "# notes\n", "notes"),
    ]
    frame = pl.DataFrame(rows, schema=["package", "path", "text", "cluster"], orient="row")
    source = pl.when(pl.col("package") == "bees").then(pl.lit("git")).otherwise(pl.lit("code"))
    size = pl.col("text").str.len_bytes().cast(pl.Int64)
    language = pl.when(pl.col("path").str.ends_with(".py")).then(pl.lit("python"))
    frame = frame.sample(fraction=1, shuffle=True, seed=1).with_columns(
        source=source, language=language, bytes=size, encoded_bytes=size, licence=pl.lit("MIT")
    )
    return frame.with_columns(id=pl.int_range(len(frame)).cast(pl.String)).sort("source", maintain_order=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    directory = tmp_path_factory.mktemp("tokenizer")
    vocabulary.write(vocabulary.learn(corpus()["text"].to_list(), 300), directory)
    return Encoder(directory)


def write(out: Path, encoder: Encoder, rows_at_once: int = 99, **settings: float) -> DocumentWriter:
    """The token files of the corpus."""
    config = TokenizeConfig.model_validate({"repository_share": 1.0, "chunk_bytes": 30, **settings})
    with (
        Output(out, vocabulary_size=300, shard_tokens=64) as output,
        DocumentWriter(config, encoder, output, out) as writer,
    ):
        for source in ("code", "git"):
            for part in corpus().filter(source=source).iter_slices(rows_at_once):
                writer.append(part, *encoder.encode(part["text"].to_list()), part["path"] == "ants/held.py")
    return writer


def test_files_of_a_package_follow_each_other_by_imports(encoder: Encoder, tmp_path: Path) -> None:
    writer = write(tmp_path, encoder)
    assert (writer.num_groups, writer.num_grouped) == (2, 6)
    store = TokenStore(tmp_path, "train")
    written = encoder.codec.decode(store.read(0, store.num_tokens).tolist(), skip_special_tokens=False)
    texts = {row["path"]: row["text"] for row in corpus().iter_rows(named=True)}
    for package in ("ants", "bees"):
        paths = [f"{package}/{name}.py" for name in MODULES]
        if package == "ants" and "<|file_sep|>ants/copy.py" in written:
            paths[0] = "ants/copy.py"  # of near duplicates the first one
        group = "".join(f"<|file_sep|>{path}\n{texts[path]}" for path in paths) + "<|endoftext|>"
        assert group in written
    for path in ("key/0.py", "key/1.py", "notes.md"):
        assert f"<|endoftext|>{texts[path]}<|endoftext|>" in f"<|endoftext|>{written}" and path not in written
    held = TokenStore(tmp_path, "validation")
    assert encoder.codec.decode(held.document(0)[:-1].tolist(), skip_special_tokens=False) == texts["ants/held.py"]


def test_every_document_keeps_its_tokens_and_its_row(encoder: Encoder, tmp_path: Path) -> None:
    write(tmp_path, encoder)
    store = TokenStore(tmp_path, "train")
    rows = pl.read_parquet(tmp_path / "train.documents.parquet").join(
        corpus().select("id", "text"), on="id", maintain_order="left"
    )
    assert len(rows) == len(corpus()) - 1 and not list(tmp_path.glob("tmp*"))
    for number, row in enumerate(rows.iter_rows(named=True)):
        *tokens, end = store.document(number).tolist()
        text = encoder.codec.decode([token for token in tokens if token != FILE_SEP_ID], skip_special_tokens=False)
        assert text in (row["text"], f"{row['path']}\n{row['text']}") and end in (END_OF_TEXT_ID, FILE_SEP_ID)
        assert row["encoded_bytes"] == len(text.encode()) and row["bytes"] == len(row["text"].encode())
    judged = token_statistics(tmp_path, encoder.codec.bytes_of_tokens(), END_OF_TEXT_ID, FILE_SEP_ID)
    assert judged["ends"].all() and judged["offsets_match"].all() and (judged["uncovered_bytes"] == 0).all()
    assert not token_statistics(tmp_path, encoder.codec.bytes_of_tokens(), END_OF_TEXT_ID)["ends"].all()


def test_same_files_however_the_documents_arrive(encoder: Encoder, tmp_path: Path) -> None:
    """At any size of a chunk; without a share, as the documents came."""
    for share in (1.0, 0.0):
        found = []
        for number, (rows_at_once, chunk_bytes) in enumerate([(99, 10**6), (1, 1), (3, 50)]):
            out = tmp_path / f"{share} {number}"
            out.mkdir()
            write(out, encoder, rows_at_once, repository_share=share, chunk_bytes=chunk_bytes)
            found.append({path.name: path.read_bytes() for path in out.iterdir()})
        assert found[0] == found[1] == found[2]
    order = pl.read_parquet(out / "train.documents.parquet")["id"].to_list()
    assert order == corpus().filter(pl.col("path") != "ants/held.py")["id"].to_list()
    assert FILE_SEP_ID not in TokenStore(out, "train").read(0, TokenStore(out, "train").num_tokens)


def files(number: int, tokens: int) -> pl.DataFrame:
    names = [f"{each:03}" for each in range(number)]
    rows = pl.DataFrame({"id": names, "path": names, "cluster": names, "tokens": [tokens] * number})
    return rows.with_columns(package=pl.lit("p"), imports=pl.lit([], dtype=pl.List(pl.String)))


def test_groups_are_bounded_and_drawn() -> None:
    rows = files(1000, 10)
    groups = groups_of(rows, share=1.0, limit_tokens=45, seed=0)
    assert groups == [list(range(first, first + 4)) for first in range(0, 1000, 4)]
    some = groups_of(rows, share=0.3, limit_tokens=45, seed=0)
    assert abs(len(some) - 75) < 4 * np.sqrt(250 * 0.3 * 0.7) and all(group in groups for group in some)
    assert groups_of(rows, share=0.3, limit_tokens=45, seed=1) != some
    assert groups_of(rows, share=1.0, limit_tokens=9, seed=0) == [], "a file that is left alone stands alone"


def test_a_path_is_one_line_without_addresses() -> None:
    assert path_lines(["a\nb.py", "of/jane@company.org/c.py", "d.py"]) == ["a b.py", "of/<EMAIL_1>/c.py", "d.py"]


def test_a_tokenizer_without_the_token_is_named(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for path in encoder.codec.directory.iterdir():
        (folder / path.name).write_text(path.read_text().replace("<|file_sep|>", "<|reserved_9|>"))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(
        DataError, match=r"found no token <\|file_sep\|>, which tokenize\.repository_share needs; learn"
    ):
        write(out, Encoder(folder))
    assert write(out, Encoder(folder), repository_share=0.0).num_groups == 0
