"""Learn the vocabulary: byte-level byte pair encoding with the special tokens of fill in the middle and chat.

Reads   clean documents (`--source`), one row each: id, text, bytes; and the clean check's report (`--report`), whose
        presence says that the documents passed
Writes  a directory that transformers' AutoTokenizer loads: tokenizer.json, tokenizer_config.json,
        special_tokens_map.json
Covers: any Unicode text, losslessly; the same sample and seed give the same bytes at any number of threads.
Not covered: languages without spaces between words get no better segments than bytes and frequencies give.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from components.core import artifact
from components.core.artifact import Manifest
from components.core.errors import DataError
from components.core.events import Events
from components.core.step import main
from components.tokens.config import VocabularyConfig
from components.tokens.special import CHAT_TEMPLATE, END_OF_TEXT, FIM_PAD, SPECIAL_TOKENS
from components.tokens.split import draw
from components.tokens.text import TOKENIZER

# A cursor stands at the end of a line or after an indentation, so both are token boundaries here: a prompt that ends
# there has the same tokens as the same text in training. GPT-4's pattern joins "):" with the line's end and the last
# space of an indentation with the word after it; on installed Python it gives 3.37 bytes per token against our 3.20,
# and a newline that is asked for after "):" is then a token which the model never saw there.
SPLIT = "|".join(
    (
        r"\s*[\r\n]+",  # line ends, with the white space before them
        r"(?<=[\r\n])[^\S\r\n]+",  # an indentation, whole
        r"[^\r\n\p{L}\p{N}]?\p{L}+",  # a word with the one character before it: " name", "_name", ".name", "(name"
        r"\p{N}",  # digits, one by one
        r" ?[^\s\p{L}\p{N}]+",  # punctuation
        r"\s+(?!\S)",  # white space inside a line, without its last character when a word follows
        r"\s+",
    )
)


def sample(ids: pl.Series, sizes: pl.Series, sample_bytes: int, seed: int) -> pl.Series:
    """True where a document belongs to the sample: the first ones in the order of a seeded hash of their ids, until
    `sample_bytes` are reached, shape (documents,).
    """
    order = pl.Series([draw(name, seed, "vocabulary") for name in ids.to_list()], dtype=pl.Float64).arg_sort()
    before = sizes.gather(order).cum_sum() - sizes.gather(order)
    chosen = order.filter(before < sample_bytes)
    return pl.int_range(len(ids), eager=True).is_in(chosen.to_list())


def pre_tokenizer(pattern: str) -> pre_tokenizers.Sequence:
    """Cut a text into the pieces that a pattern matches, and each piece into bytes."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def learn(texts: list[str], vocabulary_size: int) -> Tokenizer:
    """A tokenizer with the special tokens first, then the 256 bytes, then merges learned from the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(SPLIT)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer


def write(tokenizer: Tokenizer, directory: Path) -> None:
    """The three files that transformers' AutoTokenizer reads."""
    named = {"eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT, "pad_token": FIM_PAD}
    extra = [token for token in SPECIAL_TOKENS if token not in named.values()]
    tokenizer_config: dict[str, Any] = {
        **named,
        "additional_special_tokens": extra,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    tokenizer.save(str(directory / TOKENIZER))
    for name, content in (
        ("tokenizer_config.json", tokenizer_config),
        ("special_tokens_map.json", {**named, "additional_special_tokens": extra}),
    ):
        (directory / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run(config: VocabularyConfig, *, source: Path, report: Path, out: Path) -> Manifest:
    """Learn from a seeded sample of the clean documents and write the tokenizer. Raises DataError when there is too
    little text for the vocabulary.
    """
    inputs = [artifact.read(source), artifact.read(report)]
    events = Events("vocabulary")
    documents = pl.scan_parquet(source / "part-*.parquet")
    rows = documents.select("id", "bytes").collect()
    chosen = rows.filter(sample(rows["id"], rows["bytes"], config.sample_bytes, config.seed))
    texts = documents.filter(pl.col("id").is_in(chosen["id"].implode())).sort("id").select("text").collect()["text"]
    events.note(f"learning {config.vocabulary_size} tokens from {len(texts)} of {len(rows)} documents")
    tokenizer = learn(texts.to_list(), config.vocabulary_size)
    found = tokenizer.get_vocab_size()
    if found != config.vocabulary_size:
        raise DataError(
            f"{source}: {texts.str.len_bytes().sum()} bytes of text give {found} tokens, needed "
            f"{config.vocabulary_size}; add documents or set vocabulary.vocabulary_size to at most {found}"
        )
    with artifact.create(out, stage="vocabulary", config=config, inputs=inputs, code=Path(__file__)) as draft:
        write(tokenizer, draft.path)
        draft.statistics = {
            "vocabulary_size": found,
            "sample_documents": len(texts),
            "sample_bytes": int(texts.str.len_bytes().sum()),
        }
    assert draft.manifest is not None
    return draft.manifest


if __name__ == "__main__":
    main("vocabulary", VocabularyConfig, run)
