"""Chat templates of somebody else: kept as ids where a chat is its turns one after another, and said where not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from components.alignment.examples.chat import answer_tokens, prompt_tokens, stop_ids
from components.core.errors import ArtifactError
from components.inference.infilling_prompts import chat_prompt, chat_stop_ids
from components.tokens.encoding.chat_form import ChatForm
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import CHAT_FORM, CHAT_TEMPLATE, SpecialTokens
from components.tokens.foreign import adoption, chat_template
from tests.tokens.foreign.gguf_files import TEMPLATE
from tests.tokens.foreign.test_adoption import byte_level, write

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|stop|>\n\n' + m['content'] | trim "
    "+ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)
ADDED = ("<|im_start|>", "<|im_end|>", "<|start|>", "<|stop|>", "<s>")
OWN = {"ChatML with a default system": TEMPLATE, "Llama 3's": LLAMA3}
CHATS = (
    ["user"],
    ["system", "user"],
    ["user", "assistant", "user"],
    ["system", "user", "assistant", "user", "assistant", "user"],
)


def write_foreign(folder: Path, template: str | list[dict[str, str]], *, beside: bool = False) -> Path:
    """A tokenizer's directory with a template in its configuration, or in a file of its own as libraries now write."""
    tokenizer = Tokenizer.from_str(json.dumps(byte_level()))
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in ADDED])
    write(json.loads(tokenizer.to_str()), folder)
    config: dict[str, Any] = {"eos_token": "</s>", "bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if beside:
        (folder / "chat_template.jinja").write_text(str(template))
    else:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def adopted(folder: Path, out: Path) -> tuple[TextCodec, list[str]]:
    out.mkdir()
    notes = adoption.adopt(folder, out, 0)[2]
    return TextCodec(out), notes


@pytest.mark.parametrize("name", OWN)
def test_its_own_form_is_kept_and_gives_the_ids_of_transformers(name: str, tmp_path: Path) -> None:
    source = write_foreign(tmp_path / "theirs", OWN[name])
    codec, notes = adopted(source, tmp_path / "ours")
    assert notes[-1] == "its own chat template is kept: answers end with <|im_end|>"
    theirs = AutoTokenizer.from_pretrained(source, local_files_only=True)
    ours = AutoTokenizer.from_pretrained(tmp_path / "ours", local_files_only=True)
    for roles in CHATS:
        chat: Any = [{"role": role, "content": f"text {number}"} for number, role in enumerate(roles)]
        wanted = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert chat_prompt(codec, chat) == wanted
        assert ours.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == wanted
    special, text = codec.special, codec.encode("x = 1")
    assert prompt_tokens(text, special=special) == chat_prompt(codec, [{"role": "user", "content": "x = 1"}])
    chat = [{"role": "user", "content": "x = 1"}, {"role": "assistant", "content": "x = 1"}]
    whole = theirs.apply_chat_template(chat, return_dict=False)
    learned = prompt_tokens(text, special=special) + answer_tokens(text, special=special)
    assert whole[: len(learned)] == learned, "what is learned is how their own chat goes on, as far as its end"
    end = theirs.convert_tokens_to_ids("<|im_end|>")
    assert stop_ids(special) == chat_stop_ids(codec) == (end, special.end_of_text)
    assert special.end == end and special.user is None, "rows of tokens that nothing uses"
    assert special.chat is not None and special.chat.roles(learned)[-2:] == ["user", "assistant"]


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder = tmp_path_factory.mktemp("chat")
    return adopted(write_foreign(folder / "theirs", TEMPLATE, beside=True), folder / "ours")[0]


@given(st.lists(st.sampled_from([*ADDED, "user\n", "assistant\n", "x", "\n"])).map("".join))
@settings(deadline=None, max_examples=30)
def test_a_text_opens_and_ends_no_turn(codec: TextCodec, text: str) -> None:
    chat = codec.special.chat
    assert chat is not None
    tokens = chat_prompt(codec, [{"role": "user", "content": text}])
    assert chat.roles(tokens) == ["system", "user", "assistant"]
    assert tokens.count(chat.end) == 2
    head = len(chat.default_system) + len(chat.opening["user"])
    assert codec.encode(text) == tokens[head : -len(chat.closing["user"]) - len(chat.opening["assistant"])]


def test_the_form_goes_through_json_unchanged(codec: TextCodec) -> None:
    chat = codec.special.chat
    assert chat is not None and ChatForm.read(json.loads(json.dumps(chat.record()))) == chat


def test_ours_is_written_by_single_tokens_as_ever(tmp_path: Path) -> None:
    source = write_foreign(tmp_path / "theirs", CHAT_TEMPLATE)
    codec, notes = adopted(source, tmp_path / "ours")
    assert notes == [] and CHAT_FORM not in json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text())
    special = codec.special
    assert prompt_tokens([9], [8], special=special) == [
        special.system,
        8,
        special.end,
        special.user,
        9,
        special.end,
        special.assistant,
    ]


FORGED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
MERGED = (
    "{% for m in messages %}{% if m.role == 'system' %}{% set ns = m.content %}{% elif m.role == 'user' %}"
    "<|start|>[INST]{% if loop.index0 == 1 and messages[0].role == 'system' %}{{ messages[0].content }} {% endif %}"
    "{{ m.content }}[/INST]{% else %}<|stop|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|stop|>{% endif %}"
)
NUMBERED = (
    "{% for m in messages %}<|start|>{{ loop.index }}{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>{{ messages | length + 1 }}assistant{% endif %}"
)
REASONS = [
    (FORGED, r"no special token opens a turn of the system: a text could say the same"),
    (MERGED, r"it gives the system no turn of its own"),
    (TEMPLATE.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>' }}"), r"in another way"),
    (TEMPLATE.replace("'<|im_end|>' + '\n'", "'\n'"), r"no special token ends an answer"),
    ("{{ raise_exception('only tools') }}", r"only tools"),
    ("{{ strftime_now('%Y') }}" + TEMPLATE, r"strftime_now"),
    ("{% for m in messages %}", r"[Uu]nexpected end|end of template"),
    (NUMBERED, r"its turns differ by their place"),
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", r"more than 1 s of a processor"),
    ("{{ ''.__class__.__mro__ }}", r"unsafe"),
    ("x" * 200_000, r"it has 200000 characters, at most 100000"),
]


@pytest.mark.parametrize(("template", "reason"), REASONS)
def test_one_that_cannot_be_taken_apart_says_why(
    template: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "CPU_SECONDS", 1)
    source = write_foreign(tmp_path, template)
    said = chat_template.take_apart(source / "tokenizer.json", template, {"bos_token": "<s>"})
    assert isinstance(said, str) and "\n" not in said
    assert re.search(reason, said), said


def test_our_form_takes_the_place_of_such_a_one_and_a_note_says_so(tmp_path: Path) -> None:
    codec, notes = adopted(
        write_foreign(tmp_path / "theirs", [{"name": "default", "template": FORGED}]), tmp_path / "o"
    )
    assert notes[-1].startswith("its chat template cannot be taken apart (no special token opens a turn")
    assert notes[-1].endswith("chats are written in our form")
    special = codec.special
    assert prompt_tokens([9], special=special) == [special.user, 9, special.end, special.assistant]


def test_a_damaged_form_is_named(tmp_path: Path) -> None:
    source = write_foreign(tmp_path, CHAT_TEMPLATE)
    (source / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", CHAT_FORM: {"begin": []}}))
    with pytest.raises(ArtifactError, match=r"tokenizer_config\.json: chat_form cannot be read \(KeyError"):
        SpecialTokens.read(source)
