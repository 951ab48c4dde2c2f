"""Learn the vocabulary: byte-level byte pair encoding with the special tokens of fill in the middle and chat.

Reads   clean documents (`--source`): id, text, bytes, source, language; and the clean check's report (`--report`),
        whose presence says that the documents passed; which checkpoint pretraining goes on from (`--initial`), if any
Writes  a directory that transformers' AutoTokenizer loads: tokenizer.json, tokenizer_config.json,
        special_tokens_map.json. Going on from a checkpoint, nothing is learned: it is that checkpoint's own tokenizer
        with the special tokens that it lacks, and statistics say what the checkpoint is
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
from components.data.documents.document import row_groups
from components.tokens.config import VocabularyConfig
from components.tokens.encoding.codec import TOKENIZER
from components.tokens.encoding.special import CHAT_TEMPLATE, END_OF_TEXT, FIM_PAD, special_tokens
from components.tokens.foreign.adoption import adopt, read_initial, read_initial_path
from components.tokens.foreign.initial import INITIAL
from components.tokens.shards.split import draw

SPACE = "Ġ"  # how byte-level vocabularies write a space

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


def sample(rows: pl.DataFrame, sample_bytes: int, seed: int) -> pl.Series:
    """True where a document (id, bytes, source, language) belongs to the sample, shape (documents,).

    Every language of every source gives its share of `sample_bytes`: its first documents in the order of a seeded hash
    of their ids, at least one, until they hold it.
    """
    strata = ("source", "language")
    order = pl.Series("order", [draw(name, seed, "vocabulary") for name in rows["id"].to_list()], dtype=pl.Float64)
    ranked = rows.select("bytes", *strata).with_columns(order).with_row_index("row").sort("order")
    before = pl.col("bytes").cum_sum().over(strata) - pl.col("bytes")
    share = pl.col("bytes").sum().over(strata) / pl.col("bytes").sum() * sample_bytes
    return ranked.select("row", chosen=(before < share) | (before == 0)).sort("row")["chosen"]


def read_sample(source: Path, sample_bytes: int, seed: int) -> pl.DataFrame:
    """The sampled documents (text, bytes, language) in the order of the corpus, read a row group at a time."""
    columns = ["id", "bytes", "source", "language"]
    rows = pl.concat(group for _, _, group in row_groups(source, columns))
    chosen = sample(rows, sample_bytes, seed)
    groups, start = [], 0
    for _, _, group in row_groups(source, ["text", "bytes", "language"]):
        groups.append(group.filter(chosen[start : start + len(group)]))
        start += len(group)
    return pl.concat(groups)


def pre_tokenizer(pattern: str) -> pre_tokenizers.Sequence:
    """Cut a text into the pieces that a pattern matches, and each piece into bytes."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def learn(texts: list[str], vocabulary_size: int, span_tokens: int = 0) -> Tokenizer:
    """A tokenizer with the special tokens first, then the 256 bytes, then merges learned from the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(SPLIT)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special_tokens(span_tokens)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer


def write(tokenizer: Tokenizer, directory: Path, span_tokens: int = 0) -> None:
    """The three files that transformers' AutoTokenizer reads."""
    named = {"eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT, "pad_token": FIM_PAD}
    extra = [token for token in special_tokens(span_tokens) if token not in named.values()]
    tokenizer_config: dict[str, Any] = {
        **named,
        "additional_special_tokens": extra,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    # Its own save() tells a full disk by a bare Exception.
    (directory / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    for name, content in (
        ("tokenizer_config.json", tokenizer_config),
        ("special_tokens_map.json", {**named, "additional_special_tokens": extra}),
    ):
        (directory / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def space_runs(tokenizer: Tokenizer) -> list[int]:
    """Of how many spaces there are tokens of nothing but spaces: what an indentation costs."""
    return sorted(len(token) for token in tokenizer.get_vocab() if set(token) == {SPACE})


def run(config: VocabularyConfig, *, source: Path, report: Path, out: Path, initial: Path | None = None) -> Manifest:
    """Learn from a seeded sample of the clean documents and write the tokenizer, or adopt a checkpoint's.

    Raises DataError when there is too little text for the vocabulary, or a checkpoint that cannot be gone on from.
    """
    inputs = [artifact.read(source), artifact.read(report)]
    checkpoint = read_initial_path(initial) if initial else None
    if checkpoint is not None:
        return _adopt(config, checkpoint, inputs, out)
    documents = read_sample(source, config.sample_bytes, config.seed)
    num_bytes = int(documents["bytes"].sum())
    Events("vocabulary").note(f"learning {config.vocabulary_size} tokens from {num_bytes} bytes")
    tokenizer = learn(documents["text"].to_list(), config.vocabulary_size, config.span_tokens)
    size = tokenizer.get_vocab_size()
    if size != config.vocabulary_size:
        raise DataError(
            f"{source}: {num_bytes} bytes of text give {size} tokens, needed "
            f"{config.vocabulary_size}; add documents or set vocabulary.vocabulary_size to at most {size}"
        )
    by_language = documents.group_by(pl.col("language").fill_null("unknown")).agg(pl.sum("bytes"))
    with artifact.create(out, stage="vocabulary", config=config, inputs=inputs, code=Path(__file__)) as draft:
        write(tokenizer, draft.path, config.span_tokens)
        draft.statistics = {
            "vocabulary_size": size,
            "sample_documents": len(documents),
            "sample_bytes": num_bytes,
            "sample_bytes_by_language": dict(sorted(by_language.iter_rows())),
            "space_runs": space_runs(tokenizer),
        }
    assert draft.manifest is not None
    return draft.manifest


def _adopt(config: VocabularyConfig, checkpoint: Path, inputs: list[Manifest], out: Path) -> Manifest:
    """Write a checkpoint's own tokenizer; the documents change nothing, and their digests are inputs all the same."""
    initial = read_initial(checkpoint)
    with artifact.create(out, stage="vocabulary", config=config, inputs=inputs, code=Path(__file__)) as draft:
        _, size, notes = adopt(checkpoint, draft.path, config.span_tokens)
        initial = initial.model_copy(update={"vocabulary_size": size})
        draft.statistics = {"vocabulary_size": size, INITIAL: initial.model_dump(mode="json")}
    added = size - initial.known_tokens
    events = Events("vocabulary")
    events.note(f"the tokenizer of {checkpoint}: {size} tokens, {added} of them new special ones")
    for note in notes:
        events.note(f"{checkpoint}: {note}")
    assert draft.manifest is not None
    return draft.manifest


if __name__ == "__main__":
    main("vocabulary", VocabularyConfig, run)
