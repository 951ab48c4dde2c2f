"""Tokenizers and weights of somebody else: what is switched off, what is refused; the rest keeps every byte."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from components.core.errors import DataError
from components.core.text import JSON_BYTES
from components.tokens.encoding.alphabet import byte_names
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.encoder import Encoder
from components.tokens.foreign import adoption, pipeline, weights
from components.tokens.foreign import pipeline_probe as probe
from components.tokens.vocabulary import SPLIT

Json = dict[str, Any]
TEXT = "def decode(self, s):\n    return self.scan(s, idx=0)  # a comment of several words, long enough to be cut\n" * 3
HARD = "\tx = 'é\u0301語😀' \r\n  ▁ </s> <|endoftext|>\x00 ﬁ² "


def byte_level(normalizer: Any = None) -> Json:
    """As GPT-2's and most since: bytes, merges, and the end of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return dict(json.loads(tokenizer.to_str()))


def sentence_piece(kind: str) -> Json:
    """As Llama 2's (by normalizers) or newer ones (by Metaspace): characters, with bytes for the others."""
    named = ["<unk>", "</s>", *byte_names()]
    tokens = [*named, "▁", *"abcdefghijklmnopqrstuvwxyz", "▁d", "de", "▁de"]
    scores = [(token, -float(place)) for place, token in enumerate(tokens)]
    model = (
        models.Unigram(scores, 0, True)
        if kind == "unigram"
        else models.BPE(
            {token: place for place, token in enumerate(tokens)},
            [("▁", "d"), ("d", "e"), ("▁", "de")],
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    tokenizer = Tokenizer(model)
    if kind == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return dict(json.loads(tokenizer.to_str()))


GOOD: dict[str, Callable[[], Json]] = {
    "byte-level": byte_level,
    "byte-level, NFC": lambda: byte_level(normalizers.NFC()),
    "llama": lambda: sentence_piece("llama"),
    "metaspace": lambda: sentence_piece("metaspace"),
}


def write(content: Json, folder: Path) -> Path:
    """A folder that has the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    save_file({"x": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return folder


def adopted(content: Json, tmp_path: Path) -> tuple[Path, list[str]]:
    source, out = write(content, tmp_path / "theirs"), tmp_path / "ours"
    out.mkdir()
    return out, adoption.adopt(source, out, 0)[2]


@pytest.mark.parametrize("kind", GOOD)
def test_an_ordinary_tokenizer_is_taken_as_it_is_and_its_tokens_stand_for_every_byte(kind: str, tmp_path: Path) -> None:
    content = GOOD[kind]()
    assert pipeline.cleaned(content, Path("t"))[1] == []
    notes, largest_id = probe.try_out(write(content, tmp_path / "theirs") / "tokenizer.json")
    assert (notes, largest_id) == ([], max(Tokenizer.from_str(json.dumps(content)).get_vocab().values()))
    out, notes = adopted(content, tmp_path)
    assert notes == []
    codec, sizes = TextCodec(out), TextCodec(out).bytes_of_tokens()
    for text in (TEXT, HARD, " x", "x", "\n", "▁▁"):
        (wanted,) = codec.bytes_of_texts([text])
        assert int(sizes[codec.encode(text)].sum()) - wanted in (0, 1), text
        assert Encoder(out).encode([text])[0].tolist() == codec.encode(text)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextCodec]:
    """Every ordinary tokenizer."""
    root = tmp_path_factory.mktemp("codecs")
    return {kind: TextCodec(write(content(), root / kind)) for kind, content in GOOD.items()}


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60), kind=st.sampled_from(list(GOOD)))
def test_tokens_stand_for_the_bytes_of_any_text(text: str, kind: str, codecs: dict[str, TextCodec]) -> None:
    codec = codecs[kind]
    (wanted,) = codec.bytes_of_texts([text])
    assert int(codec.bytes_of_tokens()[codec.encode(text)].sum()) - wanted in (0, 1)


def with_state(name: str) -> Callable[[Json], None]:
    """What a tokenizer carries of the run that it was saved in."""

    def change(content: Json) -> None:
        tokenizer = Tokenizer.from_str(json.dumps(content))
        match name:
            case "truncation":
                tokenizer.enable_truncation(8, stride=2)
            case "padding":
                tokenizer.enable_padding(length=512, pad_id=3, pad_token="!")
            case "post_processor":
                tokenizer.post_processor = processors.TemplateProcessing("</s> $A </s>", special_tokens=[("</s>", 300)])
            case "dropout":
                tokenizer.model.dropout = 0.5
            case "added_tokens":
                tokenizer.add_tokens([AddedToken("return", lstrip=True, rstrip=True)])
        content |= json.loads(tokenizer.to_str())

    return change


STATES = {
    "truncation": "truncation of its texts",
    "padding": "padding of its texts",
    "post_processor": "the tokens that its post-processor TemplateProcessing adds",
    "dropout": "dropout of 0.5 of its merges",
    "added_tokens": "the white space that 1 added tokens take, as 'return'",
}


@pytest.mark.parametrize("name", STATES)
def test_the_state_of_a_run_is_switched_off_with_a_note(name: str, tmp_path: Path) -> None:
    content = byte_level()
    with_state(name)(content)
    out, notes = adopted(content, tmp_path)
    assert notes == [f"switched off in its tokenizer: {STATES[name]}"]
    for written in (Tokenizer.from_file(str(out / "tokenizer.json")), TextCodec(out)):
        ids = written.encode(TEXT)
        ids = getattr(ids, "ids", ids)
        assert written.decode(ids, skip_special_tokens=False) == TEXT
    codec = TextCodec(out)
    assert len({tuple(codec.encode(TEXT)) for _ in range(5)}) == 1


@pytest.mark.parametrize("name", ["truncation", "padding", "dropout"])
def test_a_models_directory_that_nobody_cleaned_is_read_without_the_state_of_a_run(name: str, tmp_path: Path) -> None:
    content, plain = byte_level(), write(byte_level(), tmp_path / "plain")
    with_state(name)(content)
    codec = TextCodec(write(content, tmp_path / "raw"))
    assert codec.encode(TEXT) == TextCodec(plain).encode(TEXT)
    assert codec.encode_batch([TEXT, "a"]) == TextCodec(plain).encode_batch([TEXT, "a"])


def test_a_text_that_says_the_end_is_not_one(tmp_path: Path) -> None:
    content = byte_level()
    content["added_tokens"][0]["special"] = False
    out, _ = adopted(content, tmp_path)
    codec = TextCodec(out)
    assert codec.special.end_of_text not in codec.encode("a </s> b")
    assert codec.decode(codec.encode("a </s> b")) == "a </s> b"


def test_the_bytes_that_a_vocabulary_lacks_get_tokens_behind_its_ids(tmp_path: Path) -> None:
    """As SmolLM's lacks 21: a text with them would lose them."""
    content = byte_level()
    model, lacked = content["model"], ("Ą", "ñ", "À")  # 0x04, 0xF1, and 0xC0, which no UTF-8 has
    model["vocab"] = {token: number for number, token in enumerate(t for t in model["vocab"] if t not in lacked)}
    model["merges"] = [each for each in model["merges"] if "".join(each) in model["vocab"]]
    content["added_tokens"][0]["id"] = len(model["vocab"])
    known = len(model["vocab"]) + 1
    assert probe.try_out(write(content, tmp_path / "probed") / "tokenizer.json") == ([], known - 1)
    out, notes = adopted(content, tmp_path)
    assert notes == ["its tokenizer drops 3 of the 256 bytes, as 'À': tokens of them are new"]
    codec, text = TextCodec(out), "a\x04b \U00050000"
    ids = codec.encode(text)
    assert codec.decode(ids) == text and int(codec.bytes_of_tokens()[ids].sum()) == len(text.encode())
    assert codec.special.end_of_text == known - 1
    assert {each for each in ids if each >= known} == {known + 1, known + 2}
    assert codec.special.fim_prefix is not None and codec.special.fim_prefix >= known + 3
    assert Encoder(out).encode([text])[0].tolist() == ids


def test_a_model_that_has_the_end_of_a_text_as_a_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a text that says </s> becomes that special token; needed a tokenizer that"):
        adopted(sentence_piece("unigram"), tmp_path)


def test_what_the_other_files_say_of_a_run_is_not_taken_over(tmp_path: Path) -> None:
    source = write(byte_level(), tmp_path / "theirs")
    theirs = {
        "eos_token": {"content": "</s>"},
        "model_max_length": 8,
        "truncation_side": "left",
        "auto_map": {"a": "b"},
    }
    theirs |= {"clean_up_tokenization_spaces": True, "add_bos_token": True, "pad_token": "<nowhere>"}
    (source / "tokenizer_config.json").write_text("\ufeff" + json.dumps(theirs), encoding="utf-8")
    (tmp_path / "ours").mkdir()
    adoption.adopt(source, tmp_path / "ours", 0)
    written = json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text())
    del written["chat_template"]
    wanted = {"eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    assert written == wanted


def part(stage: str, **content: Any) -> Callable[[Json], None]:
    return lambda tokenizer: tokenizer.update({stage: content})


def nested(depth: int) -> Json:
    found: Json = {"type": "NFC"}
    for _ in range(depth):
        found = {"type": "Sequence", "normalizers": [found]}
    return found


def split(pattern: str, behavior: str = "Isolated", *, invert: bool = False) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def growing(content: Json) -> None:
    """Each of five parts writes ten characters for one."""
    each = {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 10}
    content["normalizer"] = {"type": "Sequence", "normalizers": [each] * 5}


def of_words(content: Json) -> None:
    content["model"] = {"type": "WordLevel", "vocab": {"[UNK]": 0, "def": 1}, "unk_token": "[UNK]"}


def without_bytes(content: Json) -> None:
    for token in [each for each in content["model"]["vocab"] if len(each) == 1][:65]:
        del content["model"]["vocab"][token]
    content["model"]["merges"] = []


def numbered(content: Json) -> None:
    content["model"]["vocab"] = dict.fromkeys(content["model"]["vocab"], 2**32)


def long_tokens(content: Json) -> None:
    content["model"]["vocab"]["a" * 5000] = 299


REFUSED: list[tuple[str, Callable[[Json], Any], str]] = [
    ("growing", growing, r"its normalizer Replace of .* by 'xxxxxxxxxx' changes or loses text"),
    ("lowercase", part("normalizer", type="Lowercase"), r"its normalizer Lowercase changes or loses text"),
    ("accents", part("normalizer", type="StripAccents"), r"its normalizer StripAccents"),
    ("strip", part("normalizer", type="Strip", strip_left=True, strip_right=True), r"its normalizer Strip"),
    ("nmt", part("normalizer", type="Nmt"), r"its normalizer Nmt"),
    ("nfkc", part("normalizer", type="NFKC"), r"its normalizer NFKC"),
    ("precompiled", part("normalizer", type="Precompiled", precompiled_charsmap=""), r"its normalizer Precompiled"),
    ("prepend", part("normalizer", type="Prepend", prepend="x" * 10**6), r"its normalizer Prepend"),
    ("unknown", part("normalizer", type="Shout"), r"its normalizer Shout"),
    ("of no type", part("normalizer", normalizers=[]), r"its parts have another form .*KeyError"),
    ("deep", lambda content: content.update(normalizer=nested(5000)), r"RecursionError"),
    ("many", part("normalizer", type="Sequence", normalizers=[{"type": "NFC"}] * 99), r"99 parts, at most 32"),
    ("whitespace", part("pre_tokenizer", type="Whitespace"), r"its pre-tokenizer Whitespace loses text"),
    ("delimiter", part("pre_tokenizer", type="CharDelimiterSplit", delimiter="x"), r"CharDelimiterSplit loses"),
    ("bert", part("pre_tokenizer", type="BertPreTokenizer"), r"its pre-tokenizer BertPreTokenizer loses text"),
    ("removed", part("pre_tokenizer", **split(r"\s+", "Removed")), r"its pre-tokenizer Split removes"),
    ("nested", part("pre_tokenizer", **split(r"(a+)+b")), r"may take exponential time \(a repetition within"),
    ("reference", part("pre_tokenizer", **split(r"(a*)\1b")), r"may take exponential time \(it refers back"),
    ("wordpiece", part("decoder", type="WordPiece", prefix="##", cleanup=True), r"its decoder WordPiece"),
    ("ctc", part("decoder", type="CTC", pad_token="a", word_delimiter_token="|", cleanup=True), r"its decoder CTC"),
    ("strips", part("decoder", type="Strip", content="a", start=10, stop=10), r"its decoder Strip"),
    ("replaces", part("decoder", type="Replace", pattern={"String": "e"}, content=""), r"its decoder Replace"),
    ("words", of_words, r"its model WordLevel has no token for unknown words' bytes"),
    ("bytes", without_bytes, r"lacks tokens of 65 of the 256 bytes"),
    ("long", long_tokens, r"a token has 5000 characters, at most 2048"),
    ("list", lambda content: content.update(model=[]), r"its parts have another form"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED, ids=[each[0] for each in REFUSED])
def test_what_loses_or_multiplies_text_is_refused_in_one_line(
    name: str, change: Callable[[Json], Any], message: str
) -> None:
    content = byte_level()
    change(content)
    with pytest.raises(DataError, match=rf"tokenizer\.json: .*{message}.*continue a checkpoint whose") as caught:
        pipeline.cleaned(content, Path("tokenizer.json"))
    assert "\n" not in str(caught.value)


def no_decoder(content: Json) -> None:
    content["decoder"] = None


def removing_by_inversion(content: Json) -> None:
    content["pre_tokenizer"]["pretokenizers"] = [split(r"\w+", "Removed", invert=True), content["pre_tokenizer"].copy()]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": content["pre_tokenizer"]["pretokenizers"]}


def cubic(content: Json) -> None:
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [split(r"\w*\w*\w*\w*!!!!"), content["pre_tokenizer"]],
    }


PROBED: list[tuple[Callable[[Json], None], str]] = [
    (no_decoder, r"a text is not what its tokens say: 'def f\(a, b="),
    (removing_by_inversion, r"a text is not what its tokens say"),
    (numbered, r"cannot be read as a tokenizer"),
    (growing, r"its normalizer Replace"),
]


@pytest.mark.parametrize(("change", "message"), PROBED)
def test_what_only_shows_when_it_is_tried_is_refused(
    change: Callable[[Json], None], message: str, tmp_path: Path
) -> None:
    content = byte_level()
    change(content)
    with pytest.raises(DataError, match=message) as caught:
        probe.try_out(write(content, tmp_path) / "tokenizer.json")
    assert "\n" not in str(caught.value)


def test_a_pattern_without_end_ends_its_own_process_alone(tmp_path: Path) -> None:
    content = byte_level()
    cubic(content)
    path = write(content, tmp_path) / "tokenizer.json"
    with pytest.raises(
        DataError, match=r"needs more than 1 s of a processor or \d+ GB, or ends the process .*; continue"
    ):
        probe.check(path, cpu_seconds=1)
    assert probe.check(write(byte_level(), tmp_path / "good") / "tokenizer.json") == ([], 300)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "RecursionError|recursion"),
        ('{"model": ' + "1" * 5000 + "}", "Exceeds the limit|digits"),
        ("[]", "found list, needed an object"),
        ("\xff", "cannot be read as a tokenizer"),
    ],
)
def test_a_file_beyond_the_bounds_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message):
        pipeline.read(tmp_path / "tokenizer.json")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(JSON_BYTES + 1)
    with pytest.raises(DataError, match=r"has 64000001 bytes, at most 64000000 are read"):
        pipeline.read(path)


O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
)


@pytest.mark.parametrize(
    "pattern", [SPLIT, O200K, GPT2, DEEPSEEK, "[一-龥぀-ゟ゠-ヿ]+", r"\p{N}{1,3}", "(?:ab){1}+", r"[(a+)+]"]
)
def test_patterns_of_tokenizers_in_use_are_allowed(pattern: str) -> None:
    assert pipeline.runaway(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+",
        r"(a*)*b",
        r"(?:(a|b)+c?)*",
        r"((x{2,}))+",
        r"(a|a*)+?",
        r"(\w+\s?)*$",
        r"(a{2,9}){3,}",
        r"(a)\1",
        "a{5000}",
        "a)",
    ],
)
def test_patterns_that_may_run_away_are_not(pattern: str) -> None:
    assert pipeline.runaway(pattern) is not None


def test_adoption_changes_nothing_of_what_it_was_given() -> None:
    content = byte_level()
    with_state("added_tokens")(content)
    before = deepcopy(content)
    pipeline.cleaned(content, Path("t"))
    assert content == before


def sharded(folder: Path, weight_map: Json, shards: dict[str, list[str]]) -> None:
    for name, held in shards.items():
        save_file({each: np.zeros((2, 3), np.float32) for each in held}, folder / name)
    (folder / weights.INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_the_index_says_which_files_belong(tmp_path: Path) -> None:
    sharded(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"}, {"1.safetensors": ["a"], "2.safetensors": ["b"]})
    for stray in ("consolidated.safetensors", "model.safetensors"):
        save_file({"other": np.zeros(7, np.float32)}, tmp_path / stray)
    assert {name: each.shape for name, each in weights.tensors(tmp_path).items()} == {"a": (2, 3), "b": (2, 3)}
    assert weights.left_out(tmp_path) == ["consolidated.safetensors", "model.safetensors"]
    with weights.linked(tmp_path) as folder:
        assert {path.name for path in folder.iterdir()} == {"1.safetensors", "2.safetensors", weights.INDEX}
    assert not folder.exists()


BROKEN_INDEXES: list[tuple[Json, dict[str, list[str]], str]] = [
    ({"a": "../x.safetensors"}, {}, r"names '\.\./x\.safetensors'; needed names of safetensors files beside it"),
    ({"a": "/etc/passwd"}, {}, r"names '/etc/passwd'; needed names"),
    ({"a": "a.bin"}, {}, r"names 'a\.bin'; needed names"),
    ({"a": "gone.safetensors"}, {}, r"names gone\.safetensors, which is not there"),
    ({"a": "1.safetensors"}, {"1.safetensors": ["a", "b"]}, r"b is not named and 1\.safetensors holds it"),
    (
        {"a": "1.safetensors", "b": "1.safetensors"},
        {"1.safetensors": ["a"]},
        r"b is to be in 1\.safetensors and no shard",
    ),
    (
        {"a": "1.safetensors", "b": "2.safetensors"},
        {"1.safetensors": ["a"], "2.safetensors": ["a", "b"]},
        r"a is in 1\.safetensors too; needed it once",
    ),
    ({}, {}, r"has no weight_map of names and files"),
]


@pytest.mark.parametrize(("weight_map", "shards", "message"), BROKEN_INDEXES)
def test_an_index_that_is_not_of_these_files_is_refused(
    weight_map: Json, shards: dict[str, list[str]], message: str, tmp_path: Path
) -> None:
    sharded(tmp_path, weight_map, shards)
    with pytest.raises(DataError, match=message) as caught:
        weights.tensors(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_under_a_name_that_nothing_loads_are_named(tmp_path: Path) -> None:
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "consolidated.safetensors")
    with pytest.raises(
        DataError, match=r"found consolidated\.safetensors; needed model\.safetensors, or model\.safeten"
    ):
        weights.tensors(tmp_path)
