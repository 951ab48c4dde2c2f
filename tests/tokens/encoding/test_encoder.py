"""fastokens against tokenizers: the same ids for any text, and what happens when they are not."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import ArtifactError, DataError
from components.core.events import Events, read_events
from components.tokens import tokenize, vocabulary
from components.tokens.config import TokenizeConfig, TokensContract
from components.tokens.encoding.encoder import CLASSED_DIFFERENTLY, Encoder
from components.tokens.encoding.special import END_OF_TEXT, SPECIAL_TOKENS
from components.tokens.shards.token_store import SPLITS, TokenStore

RUNS = (
    *("a", "Z", "_é", "漢", "e\u0301", "1", "٣", "²", ".", "('", '"', "#-", "😀", "'s"),
    *(" ", "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\xa0", "\u2028", "\u3000", "\u200b", "\ufeff", "\x00"),
    *("\x1c", "\ufffd", CLASSED_DIFFERENTLY, END_OF_TEXT, "<|fim_"),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of 700 learned from runs of every kind, so that a piece cut elsewhere has other tokens."""
    directory = tmp_path_factory.mktemp("encoder")
    generator = np.random.default_rng(0)
    texts = ["".join(RUNS[each] * (1 + each % 3) for each in generator.integers(0, len(RUNS), 400)) for _ in range(40)]
    vocabulary.write(vocabulary.learn(texts, 700), directory)
    return directory


def pieces(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    tokens, lengths = encoder.encode(texts)
    assert len(lengths) == len(texts) and lengths.sum() == len(tokens)
    return [part.tolist() for part in np.split(tokens, np.cumsum(lengths)[:-1])]


@given(st.lists(st.tuples(st.sampled_from(RUNS), st.integers(1, 9)), max_size=30), st.text(max_size=30))
@example([(" ", 20_000), ("a", 20_000), ("\n", 20_000), ("1", 20_000), ("(", 20_000)], "")
@example([("a ", 9000), (" ", 9000), (CLASSED_DIFFERENTLY, 2), ("\t\n", 9000)], "x")
@example([], "")
@settings(max_examples=80, deadline=None)
def test_any_text_has_the_ids_of_tokenizers(tokenizer: Path, runs: list[tuple[str, int]], text: str) -> None:
    encoder = Encoder(tokenizer)
    assert encoder.engine == "fastokens"
    texts = [text, "".join(piece * length for piece, length in runs), text + END_OF_TEXT, ""]
    wanted = [encoder.codec.encode(each) for each in texts]
    assert pieces(encoder, texts) == wanted == pieces(Encoder(tokenizer, "tokenizers"), texts)
    assert all(token >= len(SPECIAL_TOKENS) for ids in wanted for token in ids)


def test_both_class_every_character_alike_but_one(tmp_path: Path) -> None:
    """What the pattern makes of a character is white space, letter, number or other: a letter joins an "a" before it, a
    letter or another character joins a "!", and all but a number join a " ". Merges make each of the three visible.
    Every character of the first two planes, and every 17th of those behind them, most of which nothing is assigned to.
    """
    names = byte_names()
    ids = {names[byte]: byte for byte in range(256)}
    merges = [(names[first], names[byte]) for first in b"a! " for byte in range(256)]
    ids |= {first + second: 256 + number for number, (first, second) in enumerate(merges)}
    both = Tokenizer(models.BPE(vocab=ids, merges=merges))
    both.pre_tokenizer = vocabulary.pre_tokenizer(vocabulary.SPLIT)
    both.save(str(tmp_path / "tokenizer.json"))
    slow, fast = Encoder(tmp_path, "tokenizers"), Encoder(tmp_path)
    numbers = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, sys.maxunicode + 1, 17)]
    numbers.remove(ord(CLASSED_DIFFERENTLY))
    blocks = [numbers[start : start + 512] for start in range(0, len(numbers), 512)]
    texts = ["\n".join(f"a{chr(number)}\n!{chr(number)}\n {chr(number)}" for number in block) for block in blocks]
    assert np.array_equal(slow.encode(texts)[0], fast.encode(texts)[0])
    assert fast._fast is not None
    alone = fast._fast.encode("!" + CLASSED_DIFFERENTLY).ids
    assert alone != slow.encode(["!" + CLASSED_DIFFERENTLY])[0].tolist(), "no longer classed differently: encode it too"


def byte_names() -> dict[int, str]:
    """How byte-level vocabularies write each byte: printable ones as themselves, the others from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)}


def test_a_tokenizer_that_fastokens_cannot_read_is_read_by_tokenizers(tmp_path: Path) -> None:
    learned = vocabulary.learn(["a b c d"] * 10, 280)
    learned.pre_tokenizer = pre_tokenizers.UnicodeScripts()
    learned.save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder(tmp_path)
    assert encoder.engine == "tokenizers"
    assert encoder.reason is not None and encoder.reason.startswith("fastokens cannot read this tokenizer: ")
    assert pieces(encoder, ["ab", "c"]) == [encoder.codec.encode("ab"), encoder.codec.encode("c")]


def write_clean(out: Path, texts: dict[int, str]) -> Path:
    """40 documents, with these texts for some of them."""
    rows = pl.DataFrame({"id": [f"{number:064x}" for number in range(40)]}).with_columns(
        text=pl.lit("xyz  zyx\n") + pl.col("id").str.replace_all("[0-9a-f]", "x").str.slice(0, 40),
        path=pl.col("id") + ".py",
        package=pl.lit("p"),
        licence=pl.lit("MIT"),
        language=pl.lit("python"),
        bytes=pl.lit(49, pl.Int64),
        cluster="id",
        source=pl.lit("s"),
    )
    for row, text in texts.items():
        rows[row, "text"] = text
    with artifact.create(out, stage="clean", config=StepConfig(), inputs=[], code=Path(__file__)) as draft:
        rows.write_parquet(draft.path / "part-00000.parquet")
    return out


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return write_clean(tmp_path / "clean", {39: "xyz beef xyz\n" * 3})


def write_tokenizer(out: Path, tokenizer: Tokenizer) -> Path:
    with artifact.create(out, stage="vocabulary", config=StepConfig(), inputs=[], code=Path(__file__)) as draft:
        vocabulary.write(tokenizer, draft.path)
    return out


def test_tokenizers_takes_over_when_the_ids_of_a_document_differ(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    r"""\h is a hexadecimal digit for Oniguruma and white space for PCRE2: a real difference, seen in one document."""
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    learned = vocabulary.learn(["xyz beef xyz"] * 9, 280)
    learned.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\h+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer = write_tokenizer(tmp_path / "tokenizer", learned)
    config = TokenizeConfig(validation_fraction=0.3, chunk_bytes=200, shard_tokens=100, verified_share=1.0)
    manifest = tokenize.run(config, source=clean, tokenizer=tokenizer, out=tmp_path / "fast")
    assert manifest.statistics["engine"] == "tokenizers"
    wanted = f"fastokens and tokenizers give different ids for document {39:064x}"
    assert manifest.statistics["engine_reason"] == wanted
    notes = [event["text"] for event in read_events(Events("tokenize").path)[0] if event["kind"] == "note"]
    assert notes == [f"encoded by tokenizers, about ten times slower: {wanted}"]
    slow = config.model_copy(update={"engine": "tokenizers"})
    other = tokenize.run(slow, source=clean, tokenizer=tokenizer, out=tmp_path / "slow")
    assert manifest.files == other.files


def test_odd_documents_are_written_whole(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty, nothing but a special token's name, U+FFFD and NUL. (A Parquet string is UTF-8: no lone surrogates.)

    An empty document is written as any other, and named by the contract unless its bounds let it pass.
    """
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    clean = write_clean(tmp_path / "clean", {0: "", 1: END_OF_TEXT, 2: "\ufffd\x00", 3: f"x{CLASSED_DIFFERENTLY}y"})
    adopted = write_tokenizer(tmp_path / "tokenizer", Tokenizer.from_file(str(tokenizer / "tokenizer.json")))
    config = TokenizeConfig(validation_fraction=0.3, repository_share=0.0)
    with pytest.raises(DataError, match=rf"bytes_per_token_out_of_range 1\); first {0:064x}\.py"):
        tokenize.run(config, source=clean, tokenizer=adopted, out=tmp_path / "tokens")
    config = config.model_copy(update={"contract": TokensContract(min_bytes_per_token=0)})
    manifest = tokenize.run(config, source=clean, tokenizer=adopted, out=tmp_path / "tokens")
    assert manifest.statistics["engine"] == "fastokens" and manifest.statistics["verified_documents"] >= 1
    encoder = Encoder(adopted)
    found = {}
    for split in SPLITS:
        store = TokenStore(tmp_path / "tokens", split)
        ids = pl.read_parquet(tmp_path / "tokens" / f"{split}.documents.parquet")["id"]
        found |= {identity: store.document(row).tolist() for row, identity in enumerate(ids)}
    texts = dict(pl.read_parquet(clean / "part-00000.parquet").select("id", "text").rows())
    assert found == {identity: [*encoder.codec.encode(text), 0] for identity, text in texts.items()}
    assert found[f"{0:064x}"] == [0] and min(found[f"{1:064x}"][:-1]) >= len(SPECIAL_TOKENS)


def test_a_tokenizer_without_our_special_tokens_is_refused(clean: Path, tmp_path: Path) -> None:
    learned = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    endless = write_tokenizer(tmp_path / "endless", learned)
    with pytest.raises(ArtifactError, match=r"endless: no token ends a text; needed <\|endoftext\|>"):
        tokenize.run(TokenizeConfig(), source=clean, tokenizer=endless, out=tmp_path / "out")
    learned.add_special_tokens(["<|endoftext|>"])
    tokenizer = write_tokenizer(tmp_path / "tokenizer", learned)
    with pytest.raises(
        DataError, match=r"tokenizer: found no token <\|fim_prefix\|> or <fim_prefix> .*adopt that of a"
    ):
        tokenize.run(TokenizeConfig(), source=clean, tokenizer=tokenizer, out=tmp_path / "out")


def test_a_tokenizer_of_another_digest_is_named(clean: Path, tokenizer: Path, tmp_path: Path) -> None:
    adopted = write_tokenizer(tmp_path / "tokenizer", Tokenizer.from_file(str(tokenizer / "tokenizer.json")))
    path = adopted / "tokenizer.json"
    path.write_text(path.read_text().replace('"version": "1.0"', '"version": "1.1"'))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: found sha256 \w+, the manifest says \w+; delete"):
        tokenize.run(TokenizeConfig(), source=clean, tokenizer=adopted, out=tmp_path / "out")
