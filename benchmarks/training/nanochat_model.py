"""nanochat's model and optimizer, re-implemented from github.com/karpathy/nanochat at 92d63d4 (MIT, Andrej Karpathy).

Rotary positions, normalised queries and keys, untied embeddings, squared ReLU, a norm after the embedding, value
embeddings with gates, smear, back-out, residual scalars, soft-capped logits; MuonAdamW with row equilibration, Polar
Express, NorMuon's variance reduction and cautious weight decay.  Left out, as it does not matter at this length:
sliding windows, key-value caches, several workers.
"""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
SOFT_CAP = 15.0
GATE_CHANNELS, SMEAR_CHANNELS = 12, 24


def norm(values: Tensor) -> Tensor:
    """RMSNorm without weights."""
    return functional.rms_norm(values, (values.shape[-1],))


def rotate(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of (B, T, H, D)."""
    half = values.shape[3] // 2
    first, second = values[..., :half], values[..., half:]
    return torch.cat([first * cos + second * sin, second * cos - first * sin], 3)


class Block(nn.Module):
    """Attention and a squared-ReLU feed-forward, both on the normalised stream."""

    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.c_q, self.c_k, self.c_v, self.c_proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.c_fc, self.c_out = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.ve_gate = nn.Linear(GATE_CHANNELS, heads, bias=False) if gated else None

    def forward(self, stream: Tensor, value_embedding: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        samples, length, width = stream.shape
        shape = (samples, length, self.heads, width // self.heads)
        inner = norm(stream)
        query, key, value = (each(inner).view(shape) for each in (self.c_q, self.c_k, self.c_v))
        if value_embedding is not None:
            assert self.ve_gate is not None
            gate = 3 * torch.sigmoid(self.ve_gate(inner[..., :GATE_CHANNELS]))
            value = value + gate.unsqueeze(-1) * value_embedding.view(shape)
        query, key = (norm(rotate(each, cos, sin)) * 1.2 for each in (query, key))
        attended = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True
        )
        stream = stream + self.c_proj(attended.transpose(1, 2).reshape(samples, length, width))
        added: Tensor = self.c_out(functional.relu(self.c_fc(norm(stream))).square())
        return stream + added


class Trunk(nn.Module):
    """Everything before the output embedding; called as transformers' models are."""

    def __init__(self, vocabulary_size: int, layers: int, width: int, head_width: int, length: int) -> None:
        super().__init__()
        heads = max(1, width // head_width)
        self.wte = nn.Embedding(vocabulary_size, width)
        self.blocks = nn.ModuleList(Block(width, heads, _has_value_embedding(i, layers)) for i in range(layers))
        self.value_embeds = nn.ModuleDict(
            {str(i): nn.Embedding(vocabulary_size, width) for i in range(layers) if _has_value_embedding(i, layers)}
        )
        spread = [i / max(layers - 1, 1) for i in range(layers)]
        self.resid_lambdas = nn.Parameter(torch.tensor([1.15 - 0.10 * each for each in spread]))
        self.x0_lambdas = nn.Parameter(torch.tensor([0.20 - 0.15 * each for each in spread]))
        self.smear_gate = nn.Linear(SMEAR_CHANNELS, 1, bias=False)
        self.smear_lambda = nn.Parameter(torch.zeros(1))
        self.backout_lambda = nn.Parameter(torch.full((1,), 0.2))
        angles = torch.outer(
            torch.arange(length), 100_000.0 ** -(torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
        )
        self.register_buffer("cos", angles.cos()[None, :, None, :])
        self.register_buffer("sin", angles.sin()[None, :, None, :])

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        """last_hidden_state (B, T, D)."""
        stream = norm(self.wte(input_ids))
        gate = self.smear_lambda * torch.sigmoid(self.smear_gate(stream[:, 1:, :SMEAR_CHANNELS]))
        stream = torch.cat([stream[:, :1], stream[:, 1:] + gate * stream[:, :-1]], dim=1)
        first, middle = stream, stream
        cos, sin = self.cos[:, : input_ids.shape[1]], self.sin[:, : input_ids.shape[1]]  # type: ignore[index]
        for index, block in enumerate(self.blocks):
            stream = self.resid_lambdas[index] * stream + self.x0_lambdas[index] * first
            value_embedding = self.value_embeds[str(index)](input_ids) if str(index) in self.value_embeds else None
            stream = block(stream, value_embedding, cos, sin)
            if index == len(self.blocks) // 2:
                middle = stream
        return SimpleNamespace(last_hidden_state=norm(stream - self.backout_lambda * middle))


class CappedHead(nn.Linear):
    """Logits between -15 and 15."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V), float32."""
        logits: Tensor = super().forward(hidden).float()
        return SOFT_CAP * torch.tanh(logits / SOFT_CAP)


class Nanochat(nn.Module):
    """What the measure of held-out documents asks of a model of transformers, it asks of this one too."""

    def __init__(self, vocabulary_size: int, layers: int, width: int, head_width: int, length: int) -> None:
        super().__init__()
        self.model = Trunk(vocabulary_size, layers, width, head_width, length)
        self.lm_head = CappedHead(width, vocabulary_size, bias=False)
        self._initialise(width)

    @property
    def base_model(self) -> Trunk:
        """All but the output embedding."""
        return self.model

    def get_output_embeddings(self) -> CappedHead:
        """The output embedding, cap included."""
        return self.lm_head

    def _initialise(self, width: int) -> None:
        bound = (3 / width) ** 0.5
        nn.init.normal_(self.model.wte.weight, std=0.8)
        nn.init.normal_(self.lm_head.weight, std=0.001)
        nn.init.uniform_(self.model.smear_gate.weight, 0.0, 0.02)
        for embedding in self.model.value_embeds.values():
            nn.init.uniform_(embedding.weight, -bound, bound)  # type: ignore[arg-type]
        for block in self.model.blocks:
            assert isinstance(block, Block)
            for matrix in (block.c_q, block.c_k, block.c_v):
                nn.init.uniform_(matrix.weight, -bound, bound)
            nn.init.uniform_(block.c_fc.weight, -0.4 * bound, 0.4 * bound)
            nn.init.zeros_(block.c_proj.weight)
            nn.init.zeros_(block.c_out.weight)
            if block.ve_gate is not None:
                nn.init.uniform_(block.ve_gate.weight, 0.0, 0.02)

    def forward(self, windows: Tensor) -> Tensor:
        """Mean next-token loss of windows of T + 1 tokens."""
        logits = self.lm_head(self.model(windows[:, :-1]).last_hidden_state)
        return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


class MuonAdamW:
    """Muon for matrices of the blocks, AdamW for the rest."""

    def __init__(self, model: Nanochat, width: int, batch_scale: float, weight_decay: float) -> None:
        trunk, scale = model.model, (width / 768) ** -0.5
        self.weight_decay = weight_decay
        groups: list[dict[str, Any]] = [
            _group([model.lm_head.weight], 0.008 * scale, (0.8, 0.96), 0.01),
            _group([trunk.wte.weight], 0.3 * scale, (0.8, 0.995), 0.001),
            _group(list(trunk.value_embeds.parameters()), 0.3 * scale * 0.5, (0.8, 0.995), 0.01),
            _group([trunk.resid_lambdas], 0.5 * 0.01, (0.8, 0.95), 0.05),
            _group([trunk.x0_lambdas], 0.5, (0.96, 0.95), 0.0),
            _group([trunk.smear_gate.weight, trunk.smear_lambda, trunk.backout_lambda], 0.2, (0.8, 0.95), 0.0),
        ]
        for group in groups[:5]:  # the smear group's rate is a constant
            group["peak"] = group["lr"] = group["lr"] * batch_scale
        self.adamw = torch.optim.AdamW(groups, eps=1e-10, fused=True)
        matrices = list(trunk.blocks.parameters())
        self.stacks = [
            [each for each in matrices if each.shape == shape] for shape in sorted({each.shape for each in matrices})
        ]
        self.rate = 0.02 * batch_scale
        self.momenta = [torch.zeros(len(stack), *stack[0].shape) for stack in self.stacks]
        self.seconds = [
            torch.zeros(len(stack), *((stack[0].shape[0], 1) if _is_tall(stack[0]) else (1, stack[0].shape[1])))
            for stack in self.stacks
        ]

    @torch.no_grad()
    def step(self, share: float, momentum: float, decay_share: float) -> None:
        """Apply the gradients at a share of the peak rates, and clear them."""
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * share
        self.adamw.step()
        self.adamw.zero_grad()
        for stack, first, second in zip(self.stacks, self.momenta, self.seconds, strict=True):
            gradients = torch.stack([each.grad for each in stack])  # type: ignore[misc]
            parameters = torch.stack([each.detach() for each in stack])
            update = muon_update(gradients, first, second, momentum)
            rate = self.rate * share
            kept = update * parameters >= 0
            parameters -= rate * update + rate * self.weight_decay * decay_share * parameters * kept
            for each, value in zip(stack, parameters.unbind(), strict=True):
                each.copy_(value)
                each.grad = None


@torch.compile(dynamic=False)
def _polar(update: Tensor) -> Tensor:
    target = update.norm(dim=(-2, -1), keepdim=True) / update.size(-2) ** 0.5
    result = (update * (target / update.norm(dim=-1, keepdim=True).clamp_min(1e-6))).bfloat16()
    result = result / (result.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        if update.size(-2) > update.size(-1):
            gram = result.mT @ result
            result = a * result + result @ (b * gram + c * (gram @ gram))
        else:
            gram = result @ result.mT
            result = a * result + (b * gram + c * (gram @ gram)) @ result
    found: Tensor = result.float()
    return found


def muon_update(gradients: Tensor, first: Tensor, second: Tensor, momentum: float) -> Tensor:
    """Momentum, orthogonalisation, and NorMuon's scales; all of shape (matrices, rows, columns) but `second`."""
    first.lerp_(gradients, 1 - momentum)
    update: Tensor = _polar(gradients.lerp_(first, momentum))
    update = update * (min(update.shape[-2:]) ** 0.5 / update.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-6))
    axis = -1 if second.shape[-1] == 1 else -2
    mean = update.square().mean(dim=axis, keepdim=True)
    second.lerp_(mean, 1 - 0.9)
    scale = second.clamp_min(1e-10).rsqrt()
    size = update.size(axis)
    before = (mean.sum(dim=(-2, -1), keepdim=True) * size).sqrt()
    after = (mean * size * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return update * scale * (before / after.clamp_min(1e-10))


def schedule(share: float, warmup: float) -> float:
    """Rates: up over `warmup` of the run, down to 5 % over its last 65 %."""
    if share < warmup:
        return share / warmup
    return 1.0 if share <= 0.35 else max(0.0, 1 - share) / 0.65 * 0.95 + 0.05


def momentum_at(step: int, share: float) -> float:
    """0.85 to 0.97 over 400 steps, down to 0.90 while the rates fall."""
    if step < 400:
        return 0.85 + 0.12 * step / 400
    return 0.97 if share <= 0.35 else 0.97 - 0.07 * min(1.0, (share - 0.35) / 0.65)


def decay_at(share: float) -> float:
    """Weight decay falls to nothing along a cosine."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _has_value_embedding(layer: int, layers: int) -> bool:
    return layer % 2 == (layers - 1) % 2


def _is_tall(matrix: Tensor) -> bool:
    return matrix.shape[0] >= matrix.shape[1]


def _group(parameters: list[Any], rate: float, betas: tuple[float, float], decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": rate, "peak": rate, "betas": betas, "weight_decay": decay}
