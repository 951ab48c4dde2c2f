"""Bytes that one worker needs to train a size: a formula, held against measured peaks (tests/training/planning).

State, for each parameter: the float32 master and its gradient there 8, the weight and its gradient in the compute
precision 4 or 8, momenta 4 (Muon) or 8 (AdamW). Masters, momenta and the master's gradients are divided among workers
(ZeRO-1, components.training.engine.devices.parallel); sharded workers also divide weights and gradients, in float32,
and gather a block and the embeddings in the compute precision. Activations, for each token and block: 12 D + 4 K + 4 F
numbers kept for the backward pass (D width, K key-value width, F feed-forward; Korthikanti et al. 2022,
arXiv:2205.05198, section 4.1, counted anew for SwiGLU, RMSNorm and normalised queries), and 2 heads T more where the
scores are materialised, which model.attention_of decides by the context. With activation checkpointing only the D
numbers between blocks are kept, and all of one block while it is computed. Loss: LOGIT_COPIES of one chunk of logits
(components.training.engine.model.loss).
Covers: eager steps of dense decoders; compiled ones need less.  Not covered: fragmentation, experts, recurrent blocks
and encoder-decoders (their state is right, their activations are a dense model's); not measured: GPUs, sharding and
activation checkpointing, by the same formula.
"""

from components.training.config import Parallel, PlanConfig, Precision
from components.training.engine.model.shape import Shape

BYTES = {"float32": 4, "bfloat16": 2}
MASTER_AND_GRADIENT = 8
MUON_MOMENTA, ADAMW_MOMENTA = 4, 8
# As in components.training.engine.model.loss and .model, which import torch.
LOGITS_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}
LOGIT_COPIES = 5
FLASH_FROM_TOKENS = 1024
# Interpreter, torch and transformers, and what the first step loads; on a GPU the context of CUDA and its libraries.
BASE_BYTES = {"cpu": 455e6, "cuda": 1.5e9}
USABLE_SHARE = 0.9


def state_bytes(shape: Shape, precision: Precision, num_workers: int, parallel: Parallel = "data") -> float:
    """Weights, gradients and momenta of one worker."""
    embeddings = shape.vocabulary_size * shape.width * (1 if shape.tied else 2)
    matrices = max(0, shape.parameters - embeddings)
    owned = shape.parameters * MASTER_AND_GRADIENT + matrices * MUON_MOMENTA + embeddings * ADAMW_MOMENTA
    if parallel == "sharded" and num_workers > 1:
        gathered = (embeddings + matrices / shape.layers) * 2 * BYTES[precision]
        return gathered + (shape.parameters * 2 * BYTES["float32"] + owned) / num_workers
    return shape.parameters * 2 * BYTES[precision] + owned / num_workers


def activation_bytes(
    shape: Shape, precision: Precision, samples: int, sequence_length: int, checkpointing: bool = False
) -> float:
    """What a forward pass keeps for the backward pass, logits aside."""
    key_value = shape.key_value_heads * shape.head_width
    numbers = 12 * shape.width + 4 * key_value + 4 * shape.feed_forward
    if sequence_length < FLASH_FROM_TOKENS:
        numbers += 2 * shape.heads * sequence_length
    per_token = numbers + shape.layers * shape.width if checkpointing else shape.layers * numbers
    return float(samples * sequence_length * per_token * BYTES[precision])


def loss_bytes(shape: Shape, precision: Precision, samples: int, sequence_length: int, device: str) -> float:
    """One chunk of logits in its copies: the float32 ones, probabilities, gradients."""
    chunk = min(LOGITS_BYTES[device], samples * sequence_length * shape.vocabulary_size * BYTES[precision])
    return LOGIT_COPIES * chunk * 4 / BYTES[precision]


def worker_bytes(shape: Shape, config: PlanConfig, precision: Precision, micro_batch_samples: int) -> float:
    """The peak of one worker: main memory on a CPU, the GPU's on a GPU."""
    length = config.sequence_length
    return (
        BASE_BYTES[config.device]
        + state_bytes(shape, precision, config.num_workers, config.parallel)
        + activation_bytes(shape, precision, micro_batch_samples, length, config.activation_checkpointing)
        + loss_bytes(shape, precision, micro_batch_samples, length, config.device)
    )


def largest_micro_batch(shape: Shape, config: PlanConfig, precision: Precision, memory_bytes: float) -> int | None:
    """plan.micro_batch_samples, or its half, quarter ... that fits; None when not even one window does.

    On a CPU the workers share the memory.
    """
    available = USABLE_SHARE * memory_bytes / (1 if config.device == "cuda" else config.num_workers)
    samples = config.micro_batch_samples
    while samples >= 1:
        if worker_bytes(shape, config, precision, samples) <= available:
            return samples
        samples //= 2
    return None
