"""Special tokens are found under the names that tokenizers give them, ours and others'."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from components.core.config import validate
from components.core.errors import ArtifactError, ConfigError
from components.tokens import vocabulary
from components.tokens.config import VocabularyConfig
from components.tokens.encoding.special import (
    ASSISTANT_ID,
    END_ID,
    END_OF_TEXT_ID,
    FILE_SEP_ID,
    FIM_MIDDLE_ID,
    FIM_PAD_ID,
    FIM_PREFIX_ID,
    FIM_SUFFIX_ID,
    OURS,
    SYSTEM_ID,
    USER_ID,
    SpecialTokens,
)

TEXTS = [f"def function_{number}(value):\n    return value + {number}\n" for number in range(200)]


def found_in(directory: Path, names: list[str], config: dict[str, Any]) -> dict[str, Any]:
    """What is read of a tokenizer with these added tokens, numbered from 100; absent ones left out."""
    added = [{"id": 100 + place, "content": name} for place, name in enumerate(names)]
    (directory / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return {name: each for name, each in asdict(SpecialTokens.read(directory)).items() if each not in (None, ())}


def test_a_learned_vocabulary_has_the_fixed_ids_and_the_spans_that_were_asked_for(tmp_path: Path) -> None:
    vocabulary.write(vocabulary.learn(TEXTS, 300, span_tokens=5), tmp_path, span_tokens=5)
    found = SpecialTokens.read(tmp_path)
    assert found.end_of_text == END_OF_TEXT_ID
    assert (found.fim_prefix, found.fim_middle, found.fim_suffix) == (FIM_PREFIX_ID, FIM_MIDDLE_ID, FIM_SUFFIX_ID)
    chat = (found.pad, found.system, found.user, found.assistant, found.end)
    assert chat == (FIM_PAD_ID, SYSTEM_ID, USER_ID, ASSISTANT_ID, END_ID)
    assert (found.mask, found.mode_r, found.mode_s, found.mode_x) == (9, 10, 11, 12)
    assert found.file_sep == FILE_SEP_ID
    assert found.spans == (16, 17, 18, 19, 20)


@pytest.mark.parametrize(
    ("names", "config", "wanted"),
    [
        (
            # Qwen 2.5 Coder
            ["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|file_sep|>"],
            {"eos_token": "<|im_end|>"},
            {"end_of_text": 100, "fim_prefix": 101, "fim_middle": 102, "fim_suffix": 103, "pad": 104, "file_sep": 105},
        ),
        (["<file_sep>", "<|endoftext|>"], {}, {"end_of_text": 101, "file_sep": 100}),  # StarCoder 2, SmolLM2
        (
            ["<｜end▁of▁sentence｜>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],  # DeepSeek Coder
            {"eos_token": {"content": "<｜end▁of▁sentence｜>"}},
            {"end_of_text": 100, "fim_prefix": 101, "fim_suffix": 102, "fim_middle": 103},
        ),
        (
            ["<pad>", "</s>", "<extra_id_1>", "<extra_id_0>", "<extra_id_3>"],  # T5; a gap ends the spans
            {"eos_token": "</s>"},
            {"end_of_text": 101, "pad": 100, "spans": (103, 102)},
        ),
        (["[PAD]", "[SEP]", "[MASK]"], {"sep_token": "[SEP]"}, {"end_of_text": 101, "pad": 100, "mask": 102}),  # BERT
    ],
)
def test_tokens_of_other_tokenizers_are_found_by_their_names(
    tmp_path: Path, names: list[str], config: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert found_in(tmp_path, names, config) == wanted


def test_a_tokenizer_that_ends_no_text_or_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no token ends a text; needed <\|endoftext\|>, or an eos_token"):
        found_in(tmp_path, ["<pad>"], {"eos_token": "</s>"})
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: cannot be read as JSON: .*; the stage vocabulary"):
        SpecialTokens.read(tmp_path)


def test_a_vocabulary_too_small_for_its_special_tokens_is_refused() -> None:
    values = {"vocabulary_size": 300, "span_tokens": 100}
    with pytest.raises(ConfigError, match=r"vocabulary_size is 300; needed at least 372 .*100 of them span_tokens"):
        validate(values, VocabularyConfig, "params.yaml", "vocabulary")


@pytest.mark.parametrize(
    ("special", "filler"),
    [
        (OURS, OURS.pad),
        (SpecialTokens(end_of_text=0, end=8), 0),
        (SpecialTokens(end_of_text=0, end=8, fim_prefix=3), 3),
        (SpecialTokens(end_of_text=0, end=8, pad=8, fim_prefix=3), 3),
    ],
)
def test_what_fills_up_a_batch_ends_nothing_where_another_token_can(special: SpecialTokens, filler: int) -> None:
    """Else what masks padding by its id would hide where answers end."""
    assert special.filler == filler
