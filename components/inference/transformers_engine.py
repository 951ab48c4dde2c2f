"""The reference engine: transformers on torch, any architecture that it loads, CPU or GPU. Its import takes 12 s."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig

from components.core.errors import ArtifactError, ConfigError, DataError, one_line
from components.inference.ctranslate2_model import read_model_config
from components.inference.engine import (
    Completion,
    Prediction,
    Sampling,
    check_ids,
    completion_of,
    length_batches,
    with_log_probs,
)
from components.tokens.foreign.weights import linked, why_adapter

BATCH_TOKENS = 16_384
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TransformersEngine:
    """A model in transformers. Batches are padded on the left, under an attention mask."""

    name = "transformers"

    def __init__(
        self, model_dir: Path, *, compute_type: str = "float32", device: str = "cpu", num_threads: int | None = None
    ) -> None:
        """Load a Hugging Face directory; `num_threads` is torch's, for the whole process, unchanged if None.

        Raises ArtifactError for a model that cannot be read, ConfigError for a compute type or device that is not.
        """
        read_model_config(model_dir)
        if adapter := why_adapter(model_dir):
            raise ArtifactError(adapter)
        if compute_type not in DTYPES:
            raise ConfigError(f"compute_type is {compute_type}, the transformers engine needs {' or '.join(DTYPES)}")
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        try:
            # Weights in safetensors only: others are pickles, and a directory's own code is not run.
            with linked(model_dir) as folder:
                model, report = AutoModelForCausalLM.from_pretrained(
                    folder,
                    dtype=DTYPES[compute_type],
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, DataError) as error:
            raise ArtifactError(f"{model_dir}: transformers cannot load it: {one_line(error, 300)}") from error
        if missing := sorted(report["missing_keys"]):
            raise ArtifactError(
                f"{model_dir}: {len(missing)} weights are not there, as {missing[0]}; copy it again, whole"
            )
        model.generation_config = GenerationConfig()  # the directory's would change what a Sampling says
        try:
            self._model = model.eval().to(device)
        except RuntimeError as error:
            raise ConfigError(f"device is {device}, which torch cannot use here: {error}") from error
        self._device = device
        self.version = ""
        self.context_tokens = int(model.config.max_position_embeddings)
        self.vocabulary_size = int(model.config.vocab_size)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, stop_ids: Sequence[int]
    ) -> list[list[Completion]]:
        """See Engine.generate."""
        check_ids(prompts, self.vocabulary_size)
        greedy = sampling.is_greedy
        samples = 1 if greedy else sampling.num_samples
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=not greedy,
            num_return_sequences=samples,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=0,
        )
        if not greedy:
            config.update(temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.nucleus)
        results: list[list[Completion]] = [[] for _ in prompts]
        devices = [] if self._device == "cpu" else [self._device]
        with torch.random.fork_rng(devices=devices, enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            for batch in length_batches(
                [len(prompt) + sampling.max_new_tokens for prompt in prompts], BATCH_TOKENS // samples
            ):
                ids, mask = _pad([prompts[index] for index in batch], left=True)
                output = self._model.generate(
                    ids.to(self._device), attention_mask=mask.to(self._device), generation_config=config
                )
                rows = output[:, ids.shape[1] :].reshape(len(batch), samples, -1).tolist()
                for index, row in zip(batch, rows, strict=True):
                    results[index] = [completion_of(new, stop_ids) for new in row]
        results = [result * (sampling.num_samples if greedy else 1) for result in results]
        return with_log_probs(self, prompts, results) if sampling.log_probs else results

    def score(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """See Engine.score."""
        return [each.log_probs for each in self.predict(sequences)]

    @torch.inference_mode()
    def predict(self, sequences: Sequence[Sequence[int]]) -> list[Prediction]:
        """See Engine.predict."""
        check_ids(sequences, self.vocabulary_size)
        results: dict[int, Prediction] = {}
        for batch in length_batches([len(sequence) for sequence in sequences], BATCH_TOKENS):
            ids, mask = _pad([sequences[index] for index in batch], left=False)
            ends = ids.shape[1] - 1
            # What follows the last token is not asked for, and learned positions may have no place for that token.
            positions = slice(max(1, ends))
            output = self._model(ids[:, positions].to(self._device), attention_mask=mask[:, positions].to(self._device))
            logits = output.logits[:, :ends].float()
            total = logits.logsumexp(-1)
            token_logits = logits.gather(-1, ids[:, 1:, None].to(self._device)).squeeze(-1)
            log_probs, top_log_probs = ((each - total).cpu().numpy() for each in (token_logits, logits.amax(-1)))
            for row, index in enumerate(batch):
                end = len(sequences[index]) - 1
                results[index] = Prediction(log_probs=log_probs[row, :end], top_log_probs=top_log_probs[row, :end])
        return [results[index] for index in range(len(sequences))]

    def load(self, weights: Mapping[str, NDArray[np.float32]], version: str) -> None:
        """See Engine.load."""
        own = dict(self._model.named_parameters(remove_duplicate=False))  # tied ones under all their names
        covered = {own[name].data_ptr() for name in weights if name in own}
        strange = [name for name, each in weights.items() if name not in own or own[name].shape != each.shape]
        strange += [name for name, each in own.items() if each.data_ptr() not in covered]
        if strange:
            raise ArtifactError(f"{strange[0]} is another in these weights than in the model; needed weights of it")
        with torch.no_grad():
            for name, each in weights.items():
                own[name].copy_(torch.from_numpy(np.ascontiguousarray(each)))
        self.version = version

    def close(self) -> None:
        """See Engine.close."""
        del self._model


def _pad(sequences: Sequence[Sequence[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both shape (sequences, longest)."""
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        span = slice(longest - len(sequence), longest) if left else slice(0, len(sequence))
        ids[row, span] = torch.tensor(sequence, dtype=torch.long)
        mask[row, span] = 1
    return ids, mask
