"""Published scaling laws: loss in nats per token from parameters N and training tokens D. Standard library only.

They were fitted on models of tens of millions of parameters and more with vocabularies of 32,000 to 50,000; at 1M
parameters, 4,096 tokens and minutes of training they are far outside their data (`Law.covers`). The planner prints
them beside its choice and chooses by a law only where it holds: one fitted on the user's corpus (planning.fitted), or,
to weigh serving against training, one of these inside its range.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

FLOPS_PER_PARAMETER_AND_TRAINING_TOKEN = 6
FLOPS_PER_PARAMETER_AND_SERVED_TOKEN = 2
BISECTIONS = 200  # halvings of an interval of logarithms: far below float's resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """L(N, D) = irreducible + a / N^alpha + b / D^beta.

    parameters  smallest and largest model that the law was fitted on
    tokens      fewest and most training tokens, likewise
    """

    source: str
    irreducible: float
    a: float
    alpha: float
    b: float
    beta: float
    parameters: tuple[float, float] = (0.0, math.inf)
    tokens: tuple[float, float] = (0.0, math.inf)

    def loss(self, parameters: float, tokens: float) -> float:
        """In the unit of the fit (nats per token for published laws). Raises ValueError unless both are positive."""
        if parameters <= 0 or tokens <= 0:
            raise ValueError(f"found {parameters} parameters and {tokens} tokens, needed positive numbers")
        return float(self.irreducible + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def covers(self, parameters: float, tokens: float) -> bool:
        """Whether the law was fitted on runs of such a size and length."""
        low, high = self.parameters
        fewest, most = self.tokens
        return low <= parameters <= high and fewest <= tokens <= most

    def tokens_for(self, parameters: float, loss: float) -> float | None:
        """Training tokens after which a size reaches a loss; None when it never does."""
        left = loss - self.irreducible - self.a / parameters**self.alpha
        return (self.b / left) ** (1 / self.beta) if left > 0 else None

    def compute_optimal(self, flops: float) -> tuple[float, float]:
        """(N, D) of the least loss with 6 N D = flops: Hoffmann et al. 2022, equation 4."""
        product = flops / FLOPS_PER_PARAMETER_AND_TRAINING_TOKEN
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * product ** (self.beta / (self.alpha + self.beta))
        return parameters, product / parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """A model to train and to serve, and the FLOPs of both."""

    parameters: float
    training_tokens: float
    flops: float


HOFFMANN = Law(
    source="Hoffmann et al. 2022, arXiv:2203.15556, section D.3",
    irreducible=1.69,
    a=406.4,
    alpha=0.34,
    b=410.7,
    beta=0.28,
    parameters=(70e6, 16e9),
    tokens=(5e9, 500e9),
)
BESIROGLU = Law(
    source="Besiroglu et al. 2024, arXiv:2404.10102, table 1 (the runs of Hoffmann et al., fitted again)",
    irreducible=1.8172,
    a=482.01,
    alpha=0.3478,
    b=2085.43,
    beta=0.3658,
    parameters=(70e6, 16e9),
    tokens=(5e9, 500e9),
)


CEREBRAS_FLOPS = (2.6e18, 2.3e22)


def cerebras_loss(flops: float) -> float:
    """Nats per token on the Pile of a compute-optimal model, at 20 tokens per parameter.

    Dey et al. 2023 (Cerebras-GPT, arXiv:2304.03208), section 3.1: fitted on 111M to 13B parameters, CEREBRAS_FLOPS.
    Raises ValueError unless `flops` is positive.
    """
    if flops <= 0:
        raise ValueError(f"found {flops} FLOPs, needed a positive number")
    return float((flops / 5.984e22) ** -0.0737 + 0.5066)


def lifetime_flops(parameters: float, training_tokens: float, inference_tokens: float) -> float:
    """6 N D_train + 2 N D_inference: Sardana et al. 2024 (arXiv:2401.00448), equation 2."""
    training = FLOPS_PER_PARAMETER_AND_TRAINING_TOKEN * training_tokens
    return parameters * (training + FLOPS_PER_PARAMETER_AND_SERVED_TOKEN * inference_tokens)


def cheapest_to_train_and_serve(law: Law, loss: float, inference_tokens: float) -> Lifetime:
    """The size and tokens of fewest lifetime FLOPs among those that reach a loss: Sardana et al. 2024, section 2.

    Raises ValueError for a loss that the law reaches with no size. Without inference it is the compute-optimal model.
    """
    if loss <= law.irreducible:
        raise ValueError(f"a loss of {loss:g} is not above {law.irreducible:g}, which no size goes below")
    # Below this size no number of tokens reaches the loss.
    smallest = (law.a / (loss - law.irreducible)) ** (1 / law.alpha)

    def cost(excess: float) -> float:
        parameters = smallest * (1 + math.exp(excess))
        tokens = law.tokens_for(parameters, loss)
        return math.inf if tokens is None else lifetime_flops(parameters, tokens, inference_tokens)

    parameters = smallest * (1 + math.exp(lowest_at(cost, -25.0, 25.0)))
    tokens = law.tokens_for(parameters, loss)
    assert tokens is not None, "a size above the smallest reaches the loss"
    flops = lifetime_flops(parameters, tokens, inference_tokens)
    return Lifetime(parameters=parameters, training_tokens=tokens, flops=flops)


def lowest_at(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum between two points has it: golden section."""
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(BISECTIONS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if function(left) < function(right):
            high = right
        else:
            low = left
    return (low + high) / 2
