"""The CPU engine: ctranslate2, in float32 by default.

Measured with 1.3M parameters on two cores, tokens per second: 56,000 scored; generated 4,300 in batches of 16 on two
workers of one thread (2,850 on one worker of two threads, 3,500 one prompt at a time). int8 is slower at this size, and
so is MKL in the place of oneDNN (5,000 against 5,700 per CPU second in batches of 64).
"""

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from components.core.errors import ConfigError
from components.inference.bounds import NUM_SEEDS
from components.inference.ctranslate2_model import converted, read_model_config, write_model
from components.inference.engine import (
    Completion,
    Prediction,
    Sampling,
    check_ids,
    completion_of,
    length_batches,
    with_log_probs,
)

GENERATE_BATCH_SEQUENCES = 32
# Of the new tokens: how much longer than the shortest prompt of a batch another one may be. Measured with 64 new tokens
# and 64 prompts of 16 to 96 on one thread, tokens per CPU second (medians of 4): 2,603 with 0, 3,467 with 0.125, 4,326
# with 0.25, 4,626 with 0.5, 4,712 without a bound, which prompts of very different lengths need.
SPREAD_SHARE = 0.5
# Samples depend on the number of streams, so it is no matter of the machine's cores.
SEEDED_STREAMS = 2
STREAM_STRIDE = 0x9E3779B9
SCORE_BATCH_TOKENS = 1024
PREDICT_BATCH_LOG_PROBS = 1 << 24  # 64 MiB of float32 for each worker
# Above this a step is long enough for threads to share; below, they wait for each other (812 against 1,373 tokens/s).
SHARED_STEP_BYTES = 200_000_000


class CTranslate2Engine:
    """A model in ctranslate2. Its vocabulary is the ids as decimal text, so ids pass through unchanged."""

    name = "ctranslate2"

    def __init__(
        self,
        model_dir: Path,
        *,
        compute_type: str = "float32",
        device: str = "cpu",
        num_threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Convert the model on first use into `cache` (<state>/engines if None), and load it.

        `num_threads` None: all cores that this process may use. Raises ArtifactError for a model that cannot be read
        or converted, ConfigError for a device or compute type that this machine has not.
        """
        config = read_model_config(model_dir)
        self.context_tokens = int(config["max_position_embeddings"])
        self.vocabulary_size = int(config["vocab_size"])
        self._model_dir, self._config = model_dir, config
        self._path = converted(model_dir, cache)
        self.version = ""
        self._files: dict[str, bytes] | None = None  # in the place of the path's: weights that were loaded later
        self._compute_type = compute_type
        self._device = device
        self._num_threads = num_threads or len(os.sched_getaffinity(0))
        shared = device != "cpu" or (self._path / "model.bin").stat().st_size > SHARED_STEP_BYTES
        self._shares_nothing = not shared
        self._workers = 1 if shared else self._num_threads
        self._generator = self._load(self._workers)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, stop_ids: Sequence[int]
    ) -> list[list[Completion]]:
        """See Engine.generate."""
        check_ids(prompts, self.vocabulary_size)
        greedy = sampling.is_greedy
        options: dict[str, Any] = {
            "max_length": sampling.max_new_tokens,
            "end_token": list(stop_ids),
            "num_hypotheses": 1 if greedy else sampling.num_samples,
            "sampling_topk": 1 if greedy else min(sampling.top_k, self.vocabulary_size),
            "sampling_topp": 1 if greedy else sampling.nucleus,
            "sampling_temperature": 1 if greedy else sampling.temperature,
        }
        if greedy or sampling.seed is None:
            results = self._submit([self._generator], prompts, options)
        else:
            streams = self._seeded(sampling.seed)
            results = self._submit(streams, prompts, options)
            for stream in streams:
                stream.unload_model()
        repeats = sampling.num_samples if greedy else 1
        completions = [[completion_of(ids, stop_ids) for ids in sequences] * repeats for sequences in results]
        return with_log_probs(self, prompts, completions) if sampling.log_probs else completions

    def score(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """See Engine.score."""
        check_ids(sequences, self.vocabulary_size)
        results = self._generator.score_batch(
            [list(map(str, sequence)) for sequence in sequences],
            max_batch_size=SCORE_BATCH_TOKENS,
            batch_type="tokens",
            max_input_length=0,
        )
        return [np.array(result.log_probs, dtype=np.float32) for result in results]

    def predict(self, sequences: Sequence[Sequence[int]]) -> list[Prediction]:
        """See Engine.predict."""
        check_ids(sequences, self.vocabulary_size)
        batch_tokens = min(SCORE_BATCH_TOKENS, PREDICT_BATCH_LOG_PROBS // self.vocabulary_size)
        batches = length_batches([len(sequence) for sequence in sequences], batch_tokens)
        results: dict[int, Prediction] = {}
        # One call is one batch on one worker, so as many calls at once as there are workers.
        with ThreadPoolExecutor(self._workers) as pool:
            parts = pool.map(self._predict_batch, ([sequences[index] for index in batch] for batch in batches))
            for batch, part in zip(batches, parts, strict=True):
                results |= dict(zip(batch, part, strict=True))
        return [results[index] for index in range(len(sequences))]

    def _predict_batch(self, sequences: Sequence[Sequence[int]]) -> list[Prediction]:
        """The predictions of one batch, whose log probabilities of the whole vocabulary are in memory."""
        view = self._generator.forward_batch([list(sequence) for sequence in sequences], return_log_probs=True)
        if self._device != "cpu":
            view = view.to_device(ctranslate2.Device.cpu)
        log_probs = np.asarray(view.to(ctranslate2.DataType.float32))  # (sequences, longest, vocabulary)
        predictions = []
        for row, sequence in zip(log_probs, sequences, strict=True):
            ends = len(sequence) - 1
            own = row[np.arange(ends), np.asarray(sequence[1:], dtype=np.int64)]
            predictions.append(Prediction(log_probs=own, top_log_probs=row[:ends].max(-1)))
        return predictions

    def load(self, weights: Mapping[str, NDArray[np.float32]], version: str) -> None:
        """See Engine.load. Converted and handed over in memory: 1.7M parameters take 15 ms."""
        target = io.BytesIO()
        write_model(target, self._config, dict(weights), self._model_dir)
        beside = {name: (self._path / name).read_bytes() for name in ("config.json", "vocabulary.json")}
        self._files = {"model.bin": target.getvalue(), **beside}
        self._generator.unload_model()
        self._generator = self._load(self._workers)
        self.version = version

    def close(self) -> None:
        """See Engine.close."""
        self._generator.unload_model()

    def _load(self, workers: int) -> ctranslate2.Generator:
        """A loaded model whose workers share the threads."""
        try:
            return ctranslate2.Generator(
                str(self._path),
                device=self._device,
                compute_type=self._compute_type,
                inter_threads=workers,
                intra_threads=max(1, self._num_threads // self._workers),
                files=self._files,
            )
        except ValueError as error:
            raise ConfigError(f"ctranslate2: {error}; this machine has {_offers()}") from error

    def _seeded(self, seed: int) -> list[ctranslate2.Generator]:
        """Models that draw from streams of their own, as many on every machine; one where threads share a step.

        A thread's stream is seeded once, when the thread first draws: new thread, new seed. One worker a model, because
        several would share out the batches differently each time.
        """
        streams = []
        for number in range(SEEDED_STREAMS if self._shares_nothing else 1):
            ctranslate2.set_random_seed((seed + number * STREAM_STRIDE) % NUM_SEEDS)
            stream = self._load(workers=1)
            stream.generate_batch([["0"]], max_length=1, sampling_topk=0)
            streams.append(stream)
        return streams

    def _submit(
        self, generators: Sequence[ctranslate2.Generator], prompts: Sequence[Sequence[int]], options: dict[str, Any]
    ) -> list[list[list[int]]]:
        """Ids of each sample of each prompt, the ending token included; generators take the batches in turns."""
        total = len(prompts) * options["num_hypotheses"]
        workers = self._workers if len(generators) == 1 else len(generators)
        sequences = min(GENERATE_BATCH_SEQUENCES, -(-total // workers))
        spread = int(options["max_length"] * SPREAD_SHARE)
        pending: list[Any] = [None] * len(prompts)
        batches = prompt_batches([*map(len, prompts)], max(1, sequences // options["num_hypotheses"]), spread)
        for batch, generator in zip(batches, cycle(generators), strict=False):
            submitted = generator.generate_batch(
                [list(map(str, prompts[index])) for index in batch],
                include_prompt_in_result=False,
                return_end_token=True,
                asynchronous=True,
                **options,
            )
            for index, result in zip(batch, submitted, strict=True):
                pending[index] = result
        return [result.result().sequences_ids for result in pending]


def prompt_batches(lengths: Sequence[int], size: int, spread: int) -> list[list[int]]:
    """Indices of prompts that run together, in the order of their lengths: at most `size`, none longer than the
    shortest one by more than `spread` tokens.

    ctranslate2 4.8 reads as many tokens as the shortest prompt has at once, and what the others have beyond it one step
    at a time. Where the shortest has a single token, it returns the others' prompts as if they were new
    (DecoderReplica::run_generation leaves return_prefix set), so such a prompt runs with its like alone.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        shortest = lengths[batches[-1][0]] if batches else 0
        together = lengths[index] - shortest <= (spread if shortest > 1 else 0)
        if batches and together and len(batches[-1]) < size:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _offers() -> str:
    """What ctranslate2 can run on here, in words."""
    types = ", ".join(sorted(ctranslate2.get_supported_compute_types("cpu")))
    return f"{ctranslate2.get_cuda_device_count()} CUDA devices, and on its CPU: {types}"
