"""The CPU engine: ctranslate2, in float32 by default.

Measured with 1.3M parameters on two cores, tokens per second: 56,000 scored; generated 4,300 in batches of 16 on two
workers of one thread (2,850 on one worker of two threads, 3,500 one prompt at a time). int8 is slower at this size.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from components.core.errors import ConfigError
from components.inference.ctranslate2_model import converted, read_model_config
from components.inference.engine import (
    Completion,
    Prediction,
    Sampling,
    check_ids,
    completion_of,
    length_batches,
    with_log_probs,
)

GENERATE_BATCH_SEQUENCES = 16
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
        self._path = converted(model_dir, cache)
        self._compute_type = compute_type
        self._device = device
        self._num_threads = num_threads or len(os.sched_getaffinity(0))
        shared = device != "cpu" or (self._path / "model.bin").stat().st_size > SHARED_STEP_BYTES
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
            results = self._submit(self._generator, prompts, options)
        else:
            # A thread's generator is seeded once, when the thread first draws: new thread, new seed. One worker,
            # because several would share out the batches differently each time.
            ctranslate2.set_random_seed(sampling.seed)
            seeded = self._load(workers=1)
            results = self._submit(seeded, prompts, options)
            seeded.unload_model()
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
            )
        except ValueError as error:
            raise ConfigError(f"ctranslate2: {error}; this machine has {_offers()}") from error

    def _submit(
        self, generator: ctranslate2.Generator, prompts: Sequence[Sequence[int]], options: dict[str, Any]
    ) -> list[list[list[int]]]:
        """Ids of each sample of each prompt, the ending token included.

        Prompts run together only where their lengths are equal: ctranslate2 4.8 feeds what a prompt has beyond the
        shortest one of its batch token by token, and returns it as if it were new.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            groups[len(prompt)].append(index)
        pending: list[Any] = [None] * len(prompts)
        for group in groups.values():
            submitted = generator.generate_batch(
                [list(map(str, prompts[index])) for index in group],
                max_batch_size=max(1, GENERATE_BATCH_SEQUENCES // options["num_hypotheses"]),
                include_prompt_in_result=False,
                return_end_token=True,
                asynchronous=True,
                **options,
            )
            for index, result in zip(group, submitted, strict=True):
                pending[index] = result
        return [result.result().sequences_ids for result in pending]


def _offers() -> str:
    """What ctranslate2 can run on here, in words."""
    types = ", ".join(sorted(ctranslate2.get_supported_compute_types("cpu")))
    return f"{ctranslate2.get_cuda_device_count()} CUDA devices, and on its CPU: {types}"
