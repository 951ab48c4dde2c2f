"""The clipped policy gradient, its pull towards a reference, and a critic. Plain torch.

    policy      -min(w A, clip(w, 1 - low, 1 + high) A) by token, w = p / p of the policy that sampled (PPO, Schulman et
                al. 2017, arXiv:1707.06347, equation 7; a higher upper bound as DAPO, arXiv:2503.14476, equation 10)
    reference   kl * (q / p - ln(q / p) - 1) by token, q of the reference: the estimate k3 (Schulman 2020,
                joschu.net/blog/kl-approx.html), which is never negative; GRPO's equation 4
    critic      value_weight / 2 * max((V - R)^2, (clip(V, old - c, old + c) - R)^2) by token (PPO's own code), where V
                is linear in the last block's features, which it does not move
Summed over tokens; the engine divides by the tokens of the whole batch, as DAPO does and TRL's `bnpo`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from components.alignment.objectives.label_figures import LabelFigures, label_figures
from components.training.engine.model.forward import Tensors

CRITIC = "critic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """How far a step may go: bounds of the ratio and of the critic's values, weights of the terms."""

    low: float = 0.2
    high: float = 0.2
    kl: float = 0.0
    value: float = 0.2
    value_weight: float = 0.5


@dataclass(slots=True, kw_only=True)
class PolicyFigures:
    """Sums over the tokens of one step, and what stands out in it; cleared by whoever reads them.

    ratio_gap   largest |ln p - ln p of the policy that sampled| of a token
    surprise    sum of ln p + entropy: 0 on average where tokens were drawn from the very distribution
    variance    of that sum
    """

    tokens: int = 0
    clipped: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0
    surprise: float = 0.0
    variance: float = 0.0
    ratio_gap: float = 0.0
    value_error: float = 0.0

    def add(self, figures: LabelFigures, log_ratio: Tensor, clipped: Tensor, kl: Tensor) -> None:
        """Those of a micro-batch."""
        self.tokens += len(log_ratio)
        self.clipped += float(clipped.sum())
        self.kl += float(kl.sum())
        self.entropy += float(figures.entropies.sum())
        self.surprise += float((figures.log_probs.detach() + figures.entropies).sum())
        self.variance += float(figures.variances.sum())
        self.ratio_gap = max(self.ratio_gap, float(log_ratio.abs().max()) if len(log_ratio) else 0.0)


def add_critic(model: PreTrainedModel) -> None:
    """A critic on the model's features, which says 0 until it has learned."""
    width = int(model.get_input_embeddings().weight.shape[1])
    critic = nn.Linear(width, 1)
    nn.init.zeros_(critic.weight)
    nn.init.zeros_(critic.bias)
    model.add_module(CRITIC, critic.to(model.device))


def take_critic(model: PreTrainedModel) -> None:
    """The model as it was without one."""
    if hasattr(model, CRITIC):
        delattr(model, CRITIC)


class PolicyLoss(nn.Module):
    """What a step of the policy lowers; see the module. Takes a batch's arrays and columns by name."""

    def __init__(self, model: PreTrainedModel, clip: Clip) -> None:
        super().__init__()
        self.model: PreTrainedModel = model
        self.clip = clip
        self.figures = PolicyFigures()

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor,
        positions: Tensor | None = None,
        *,
        behaviour: Tensor,
        advantages: Tensor,
        reference: Tensor | None = None,
        returns: Tensor | None = None,
        values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The sum over tokens, the model's own loss, and the policy's part of each sample, shape (B,).

        behaviour, reference   ln p of each label under the policy that sampled and the reference, shape (B, T)
        advantages, returns    of each label; values, what the critic said as it was sampled
        """
        batch = Tensors(inputs=inputs, labels=labels, positions=positions)
        figures = label_figures(self.model, batch)
        log_ratio = figures.log_probs - figures.chosen(behaviour)
        gain, ratio = figures.chosen(advantages), log_ratio.exp()
        bounded = ratio.clamp(1 - self.clip.low, 1 + self.clip.high)
        lowered = -torch.minimum(ratio * gain, bounded * gain)
        pull = torch.zeros_like(lowered)
        if reference is not None:
            apart = figures.chosen(reference) - figures.log_probs
            pull = apart.exp() - apart - 1
        self.figures.add(figures, log_ratio.detach(), (bounded * gain < ratio * gain).detach(), pull.detach())
        total = lowered.sum() + self.clip.kl * pull.sum()
        if returns is not None and values is not None:
            total = total + self._critic(figures, figures.chosen(returns), figures.chosen(values))
        by_token = torch.zeros(labels.numel(), device=labels.device).index_put((figures.places,), lowered.detach())
        return total, figures.auxiliary, by_token.view(labels.shape).sum(dim=1)

    def _critic(self, figures: LabelFigures, returns: Tensor, old: Tensor) -> Tensor:
        said = self.model.get_submodule(CRITIC)(figures.hidden.detach().float())[:, 0]
        near = old + (said - old).clamp(-self.clip.value, self.clip.value)
        errors = torch.maximum((said - returns).square(), (near - returns).square())
        self.figures.value_error += float(errors.detach().sum())
        return self.clip.value_weight / 2 * errors.sum()
