"""One version of the model: text in, text out. Imports neither torch, transformers nor Ray.

Requests that ask for the same sampling run together; one with a seed runs by itself, or its samples would depend on its
company. A prompt that cannot fit is refused by its length. Others are encoded in a thread: a long one takes seconds.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from components.core import artifact
from components.core.errors import one_line
from components.inference.engine import Completion, Engine, Sampling
from components.inference.infilling_prompts import (
    Message,
    chat_prompt,
    chat_stop_ids,
    completion_prompt,
    completion_stop_ids,
    fim_prompt,
)
from components.inference.open import open_engine
from components.serving.gateway.protocol import Answer, Choice, Job, Refusal
from components.serving.replicas import replica_ports
from components.serving.replicas.batches import Batches
from components.tokens.encoding.codec import TextCodec

ENCODERS = 4
# More than tokens have on average in any text that fits.
PROBED_CHARACTERS = 16
# What a text may have fewer tokens than its beginning alone, whose last word is cut.
CUT_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The prompts of one job as ids, and how to sample from them."""

    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling
    stop_ids: tuple[int, ...]


class ModelServer:
    """A loaded model with its tokenizer. The constructor answers once, so that a running replica is a warm one.

    Raises ArtifactError for a directory that is not what its manifest says.
    """

    def __init__(self, model_dir: str, cache: str, num_threads: int | None, max_batch_size: int) -> None:
        replica_ports.open_none()
        artifact.read(Path(model_dir))  # a copy that is started again long after its model was fetched reads it again
        self._codec = TextCodec(Path(model_dir))
        self._engine = open_engine(Path(model_dir), cache=Path(cache), num_threads=num_threads)
        self._generate = Batches(partial(generate, self._engine), max_batch_size)
        self._encoders = ThreadPoolExecutor(ENCODERS)
        ends = completion_stop_ids(self._codec)
        self._engine.generate([ends], Sampling(max_new_tokens=1), stop_ids=ends)

    async def answer(self, job: Job) -> Answer | Refusal:
        """Do a job, or say why the model cannot."""
        try:
            prompts = await asyncio.get_running_loop().run_in_executor(self._encoders, self._encode, job)
            stop_ids = (chat_stop_ids if job.messages else completion_stop_ids)(self._codec)
        except ValueError as error:  # a tokenizer without what chat or a suffix needs
            return Refusal(message=str(error), code="unsupported_parameter", param=_parameter(job))
        if isinstance(prompts, Refusal):
            return prompts
        longest = max(map(len, prompts))
        room = self._engine.context_tokens - longest
        wanted = job.max_tokens or max(room, 1)
        if wanted > room:
            return _no_room(
                job, self._engine.context_tokens, f"{longest} and max_tokens is {wanted}; shorten one of them"
            )
        try:
            sampling = Sampling(
                max_new_tokens=wanted, temperature=job.temperature, top_p=job.top_p, num_samples=job.n, seed=job.seed
            )
            samples = await self._generate(Work(prompts=prompts, sampling=sampling, stop_ids=stop_ids))
        except (ValueError, TypeError, OverflowError) as error:
            return Refusal(
                message=f"the engine refuses this request: {one_line(error)}", code="invalid_value", param=None
            )
        return Answer(
            choices=tuple(cut(self._codec, sample, job.stop) for group in samples for sample in group),
            prompt_tokens=sum(map(len, prompts)),
            completion_tokens=sum(len(sample.tokens) for group in samples for sample in group),
        )

    def _encode(self, job: Job) -> tuple[tuple[int, ...], ...] | Refusal:
        return too_long(self._codec, job, self._engine.context_tokens) or encode(self._codec, job)


def too_long(codec: TextCodec, job: Job, context_tokens: int) -> Refusal | None:
    """Why a job cannot fit into the context, from its characters and the tokens of its beginning; None when only all
    of its tokens can tell. What it costs depends on the context, not on the job."""
    texts = ["".join(content for _, content in job.messages)] if job.messages else job.prompts
    longest = max(texts, key=len) + (job.suffix or "")
    if len(longest) > context_tokens * codec.max_token_characters:
        return _no_room(job, context_tokens, f"{len(longest)} characters; shorten it")
    beginning = longest[: context_tokens * PROBED_CHARACTERS]
    if len(beginning) < len(longest) and len(codec.encode(beginning)) > context_tokens + CUT_TOKENS:
        return _no_room(job, context_tokens, f"more, and {len(longest)} characters; shorten it")
    return None


def _no_room(job: Job, context_tokens: int, size: str) -> Refusal:
    return Refusal(
        message=f"the context holds {context_tokens} tokens; the prompt has {size}",
        code="context_length_exceeded",
        param="messages" if job.messages else "prompt",
    )


def _parameter(job: Job) -> str:
    """The parameter that a job's form comes from."""
    if job.messages:
        return "messages"
    return "prompt" if job.suffix is None else "suffix"


def generate(engine: Engine, works: Sequence[Work]) -> list[list[list[Completion]]]:
    """Samples of each prompt of each work, in order; works with equal sampling and no seed run as one batch."""
    answers: dict[int, list[list[Completion]]] = {}
    for indices in _together(works).values():
        prompts = [prompt for index in indices for prompt in works[index].prompts]
        first = works[indices[0]]
        samples = iter(engine.generate(prompts, first.sampling, stop_ids=first.stop_ids))
        for index in indices:
            answers[index] = [next(samples) for _ in works[index].prompts]
    return [answers[index] for index in range(len(works))]


def _together(works: Sequence[Work]) -> Mapping[object, list[int]]:
    """Indices of works that may share a batch. Greedy needs no seed; a seed keeps its work apart."""
    groups: dict[object, list[int]] = {}
    for index, work in enumerate(works):
        alone = work.sampling.seed is not None and not work.sampling.is_greedy
        key = index if alone else (replace(work.sampling, seed=None), work.stop_ids)
        groups.setdefault(key, []).append(index)
    return groups


def encode(codec: TextCodec, job: Job) -> tuple[tuple[int, ...], ...]:
    """The prompts of a job as ids, in the forms that the model was trained on."""
    if job.messages:
        messages = [Message(role=role, content=content) for role, content in job.messages]
        return (tuple(chat_prompt(codec, messages)),)
    if job.suffix is None:
        return tuple(tuple(completion_prompt(codec, prompt)) for prompt in job.prompts)
    return tuple(tuple(fim_prompt(codec, prompt, job.suffix)) for prompt in job.prompts)


def cut(codec: TextCodec, sample: Completion, stops: Sequence[str]) -> Choice:
    """The text of a sample up to the first stop string, which is not part of it."""
    text = codec.decode(sample.tokens)
    positions = [position for stop in stops if (position := text.find(stop)) >= 0]
    if positions:
        return Choice(text=text[: min(positions)], finish_reason="stop")
    return Choice(text=text, finish_reason=sample.finish_reason)
