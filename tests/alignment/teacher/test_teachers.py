"""A model of this machine as a teacher: asked in its own chat form, with its own tokenizer."""

import json
import shutil
from pathlib import Path

import pytest

from components.alignment.config import TeacherConfig
from components.alignment.examples.chat import prompt_tokens, stop_ids
from components.alignment.teacher.teachers import LocalTeacher, open_teacher
from components.core.errors import ConfigError, DataError, OvernightError
from components.inference.endpoint import Failure
from components.inference.engine import Sampling
from components.inference.open import open_engine
from components.inference.replies import Reply
from components.tokens.encoding.codec import TextCodec

QUESTIONS = ["def f(a):", "Say <|end|> hello.", "x " * 300]


def test_a_model_here_is_asked_in_its_chat_form_and_one_that_is_too_long_fails_alone(world: Path) -> None:
    teacher = open_teacher(TeacherConfig(directory=str(world / "base"), licence="MIT"), 0)
    first, second, third = teacher.completions("Be brief.", QUESTIONS, 12)
    assert isinstance(third, Failure) and "more than the context" in third.reason
    codec, engine = TextCodec(world / "base"), open_engine(world / "base")
    prompts = [prompt_tokens(codec.encode(each), codec.encode("Be brief.")) for each in QUESTIONS[:2]]
    for reply, (wanted,) in zip(
        (first, second), engine.generate(prompts, Sampling(max_new_tokens=12), stop_ids=stop_ids()), strict=True
    ):
        assert isinstance(reply, Reply)
        assert (reply.text, reply.finish_reason) == (codec.decode(wanted.tokens), wanted.finish_reason)
        assert reply.is_cut == (wanted.finish_reason == "length")
    assert teacher.identity["model"] == "base" and len(teacher.identity["digest"]) == 64
    assert teacher.usage == {"new_replies": 2}


def test_a_sampled_answer_depends_on_the_seed_alone(world: Path) -> None:
    def texts(seed: int) -> list[str]:
        replies = LocalTeacher(str(world / "base"), temperature=1.0, seed=seed).completions("", QUESTIONS[:2], 12)
        return [each.text for each in replies if isinstance(each, Reply)]

    assert texts(1) == texts(1) != texts(2)


def test_a_model_without_a_chat_form_is_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "base", tmp_path / "plain", ignore=shutil.ignore_patterns("manifest.json"))
    path = tmp_path / "plain" / "tokenizer.json"
    path.write_text(path.read_text().replace("<|user|>", "<|other|>"))
    with pytest.raises(DataError, match="has no chat template that can be taken apart; needed a model that was tuned"):
        LocalTeacher(str(tmp_path / "plain"), temperature=0, seed=0)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("{here}/nothing", "instructions.teacher.directory: .*nothing is not a directory; needed a checkpoint"),
        ("{here}/nothing.gguf", "nothing.gguf"),
        ("package:no-such-models/x.gguf", r"instructions\.teacher\.directory is .*no-such-models is not installed"),
    ],
)
def test_what_is_no_model_is_one_line(named: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OvernightError, match=message) as caught:
        LocalTeacher(named.format(here=tmp_path), temperature=0, seed=0)
    assert "\n" not in str(caught.value)


def test_a_model_whose_files_change_is_another_teacher(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / "m" / name).write_text(json.dumps({}))
    config = TeacherConfig(directory=str(tmp_path / "m"), licence="MIT")
    assert config.named_files == tuple(str(tmp_path / "m" / name) for name in ("config.json", "model.safetensors"))
    assert TeacherConfig(directory=str(tmp_path / "m" / "config.json"), licence="MIT").named_files
    assert TeacherConfig(url="http://h/v1", model="m", licence="MIT").named_files == ()


def test_an_address_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^teacher at ftp://h: needed an address .*instructions\.teacher to null"):
        open_teacher(TeacherConfig(url="ftp://h", model="m", licence="MIT"), 0)
