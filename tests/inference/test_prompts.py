"""Prompts: the forms of training, with text that can never become a special token."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.inference.infilling_prompts import chat_prompt, completion_prompt, completion_stop_ids, fim_prompt
from components.inference.repository_context import RelatedFile, context_tokens
from components.tokens import vocabulary
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import SPECIAL_TOKENS

SPECIAL_LOOKING = st.one_of(st.text(), st.lists(st.sampled_from([*SPECIAL_TOKENS, "x", "\n"])).map("".join))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    directory = tmp_path_factory.mktemp("tokenizer")
    vocabulary.write(vocabulary.learn(["def f(x):\n    return x\n" * 9], 280), directory)
    return TextCodec(directory)


@given(SPECIAL_LOOKING, SPECIAL_LOOKING)
@settings(deadline=None)
def test_forms_of_training(codec: TextCodec, first: str, second: str) -> None:
    a, b = codec.encode(first), codec.encode(second)
    assert completion_prompt(codec, first) == [0, *a]
    assert fim_prompt(codec, first, second) == [1, *a, 3, *b, 2]
    messages = [{"role": "system", "content": first}, {"role": "user", "content": second}]
    assert chat_prompt(codec, messages) == [5, *a, 8, 6, *b, 8, 7]  # type: ignore[arg-type]
    assert not [token for token in (*a, *b) if token < len(SPECIAL_TOKENS)]
    assert codec.decode([*a, *b], skip_special_tokens=False) == first + second


@given(st.text(max_size=60), st.text(max_size=60), st.integers(3, 60))
@settings(deadline=None)
def test_a_cut_keeps_what_is_near_the_cursor(codec: TextCodec, prefix: str, suffix: str, max_tokens: int) -> None:
    before, after = codec.encode(prefix), codec.encode(suffix)
    tokens = fim_prompt(codec, prefix, suffix, max_tokens)
    assert len(tokens) == min(max_tokens, len(before) + len(after) + 3)
    middle = tokens.index(3)
    kept_before, kept_after = tokens[1:middle], tokens[middle + 1 : -1]
    assert before[len(before) - len(kept_before) :] == kept_before
    assert after[: len(kept_after)] == kept_after
    assert completion_prompt(codec, prefix, max_tokens) == [0, *before][-max_tokens:]


FILES = [
    RelatedFile(path="p/far.py", text="far = 1\n"),
    RelatedFile(path="p/used.py", text="one = 1\ntwo = 2\nthree = 3\n"),
    RelatedFile(path="p/q/near.py", text="near = 1\n"),
]


def test_related_files_stand_before_a_prompt_as_in_training(codec: TextCodec) -> None:
    """What is imported last, behind it the file's own path; then the prompt as ever."""
    context = context_tokens(codec, "p/q/new.py", "from p import used\n", FILES, 500)
    order = [FILES[0], FILES[2], FILES[1]]
    written = "".join(f"<|file_sep|>{file.path}\n{file.text}" for file in order) + "<|file_sep|>p/q/new.py\n"
    assert codec.decode(context, skip_special_tokens=False) == written
    assert fim_prompt(codec, "a", "b", context=context) == [*context, *fim_prompt(codec, "a", "b")]
    assert completion_prompt(codec, "a", context=context) == [0, *context, *codec.encode("a")]
    assert context[0] in completion_stop_ids(codec), "where the next file would begin, this one ends"
    room = len(context) + 9
    assert len(fim_prompt(codec, "a" * 99, "b" * 99, room, context)) == room


@pytest.mark.parametrize("max_tokens", range(0, 90, 3))
def test_a_budget_keeps_whole_lines_of_the_nearest_files(codec: TextCodec, max_tokens: int) -> None:
    whole = context_tokens(codec, "p/q/new.py", "from p import used\n", FILES, 500)
    context = context_tokens(codec, "p/q/new.py", "from p import used\n", FILES, max_tokens)
    assert len(context) <= max_tokens
    if not context:
        assert max_tokens < len(codec.encode("p/q/new.py\n")) + 1
        return
    text, wanted = codec.decode(context, skip_special_tokens=False), codec.decode(whole, skip_special_tokens=False)
    _, first, *others = text.split("<|file_sep|>")
    path, kept = first.split("\n", 1)
    assert others == wanted.split("<|file_sep|>")[len(wanted.split("<|file_sep|>")) - len(others) :]
    if others:  # else the first is the file that is written
        full = next(file.text for file in FILES if file.path == path)
        assert kept and full.endswith(kept) and full[: len(full) - len(kept)][-1:] in ("", "\n")


def test_an_unknown_role_is_refused(codec: TextCodec) -> None:
    with pytest.raises(ValueError, match="role is 'tool'; allowed: system, user, assistant"):
        chat_prompt(codec, [{"role": "tool", "content": "x"}])  # type: ignore[typeddict-item]


def test_the_tokenizer_of_a_model_directory_is_needed(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"found no tokenizer\.json, needed the tokenizer that the model"):
        TextCodec(tmp_path)
