"""Teachers: models that are asked for answers to learn, here or behind an OpenAI-compatible API.

Covers: Hugging Face directories and GGUF files with a chat template of their own, asked in that; an endpoint as the
judges have one (bounded concurrency, Retry-After, replies kept as they come, so that another run asks only the rest).
Not covered: replies of a model here, which a run that is started again asks for again.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from components.alignment.config import TeacherConfig
from components.alignment.examples.chat import chat_of, prompt_tokens, stop_ids
from components.core.config import read_settings
from components.core.errors import ConfigError, DataError
from components.inference.endpoint import ChatEndpoint, Failure
from components.inference.engine import Sampling
from components.inference.open import open_engine
from components.inference.replies import REPLIES, Reply, ReplyCache
from components.tokens.encoding.codec import TextCodec
from components.tokens.foreign.adoption import adopt, digest_of_checkpoint
from components.tokens.foreign.location import checkpoint_directory

ADVICE = "set instructions.teacher to null"
AT_ONCE = 32


class Teacher(Protocol):
    """A model that answers. `identity` is what is recorded of it, the same in a second run."""

    identity: dict[str, str]

    @property
    def usage(self) -> dict[str, Any]:
        """What was asked of it in this run."""
        ...

    def completions(self, system: str, questions: Sequence[str], max_tokens: int) -> list[Reply | Failure]:
        """The reply to each question under one system text, none where it is empty, in their order."""
        ...


class EndpointTeacher:
    """The model of a name at a url."""

    def __init__(self, config: TeacherConfig) -> None:
        """Raises ConfigError for an address that is none."""
        assert config.url is not None and config.model is not None, "the config sees to it"
        settings = read_settings()
        self.identity = {"model": config.model}
        self._endpoint = ChatEndpoint(
            config.url,
            config.model,
            ADVICE,
            role="teacher",
            temperature=config.temperature,
            key=None if settings.teacher_key is None else settings.teacher_key.get_secret_value(),
            parallel_requests=settings.teacher_parallel_requests,
            timeout_seconds=settings.teacher_timeout_seconds,
            cache=ReplyCache(settings.state / REPLIES),
        )
        self.completions = self._endpoint.completions

    @property
    def usage(self) -> dict[str, Any]:
        """See Teacher.usage."""
        return asdict(self._endpoint.usage)


class LocalTeacher:
    """A model that lies here, asked in its own chat form. Its weights are loaded, its tokenizer is only read."""

    def __init__(self, named: str, *, temperature: float, seed: int) -> None:
        """Raises ConfigError, DataError or ArtifactError with one line for what is no model that can be asked."""
        directory = _directory(named)
        with tempfile.TemporaryDirectory(prefix="overnight-teacher-") as folder:
            self._special = adopt(directory, Path(folder), 0)[0]
            self._codec = TextCodec(Path(folder))
        self._engine = open_engine(directory)
        chat = None if self._special.chat is None else chat_of(self._special)
        if chat is None or max(*chat.opening["user"], chat.end) >= self._engine.vocabulary_size:
            raise DataError(
                f"instructions.teacher: {named}: has no chat template that can be taken apart; needed a model that was "
                "tuned to answer, or the same one behind an API (instructions.teacher.url)"
            )
        self.identity = {"model": Path(named).name, "digest": digest_of_checkpoint(directory)}
        self._temperature = temperature
        self._seed = seed
        self._asked = 0

    @property
    def usage(self) -> dict[str, Any]:
        """See Teacher.usage."""
        return {"new_replies": self._asked}

    def completions(self, system: str, questions: Sequence[str], max_tokens: int) -> list[Reply | Failure]:
        """See Teacher.completions. A question that leaves no room for an answer of `max_tokens` fails alone."""
        replies: list[Reply | Failure] = []
        for start in range(0, len(questions), AT_ONCE):
            replies += self._some(system, questions[start : start + AT_ONCE], max_tokens, self._seed + start)
        return replies

    def _some(self, system: str, questions: Sequence[str], max_tokens: int, seed: int) -> list[Reply | Failure]:
        instruction = self._codec.encode(system)
        encoded = [prompt_tokens(self._codec.encode(each), instruction, special=self._special) for each in questions]
        room = self._engine.context_tokens - max_tokens
        sampling = Sampling(max_new_tokens=max_tokens, temperature=self._temperature, seed=seed)
        asked = [each for each in encoded if len(each) <= room]
        completions = iter(self._engine.generate(asked, sampling, stop_ids=stop_ids(self._special)) if asked else [])
        self._asked += len(asked)
        replies: list[Reply | Failure] = []
        for prompt in encoded:
            if len(prompt) > room:
                replies.append(Failure(f"{len(prompt)} tokens and {max_tokens} to write are more than the context"))
                continue
            (completion,) = next(completions)
            replies.append(
                Reply(
                    text=self._codec.decode(completion.tokens),
                    prompt_tokens=len(prompt),
                    completion_tokens=len(completion.ids),
                    finish_reason=completion.finish_reason,
                )
            )
        return replies


def open_teacher(config: TeacherConfig, seed: int) -> Teacher:
    """The teacher of the parameters. Raises OvernightError with one line when it is not there."""
    if config.directory is None:
        return EndpointTeacher(config)
    return LocalTeacher(config.directory, temperature=config.temperature, seed=seed)


def _directory(named: str) -> Path:
    try:
        directory = checkpoint_directory(named)
    except (ConfigError, DataError) as error:  # it speaks of the parameter that mostly names checkpoints
        raise type(error)(str(error).replace("pretrain.init_from", "instructions.teacher.directory")) from error
    if not directory.is_dir():
        raise ConfigError(
            f"instructions.teacher.directory: {named} is not a directory; needed a checkpoint of Hugging Face's form, "
            "or a GGUF file"
        )
    return directory
