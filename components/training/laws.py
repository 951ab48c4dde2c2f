"""Published scaling laws: loss in nats per token from parameters N and training tokens D. Standard library only.

They were fitted on models of 44M parameters and more with vocabularies of 32,000; at 1M parameters, 4,096 tokens and
minutes of training they are far outside their data. The planner prints them beside its choice and does not choose by
them: at 150 s on two cores 1.3M parameters measured better than 2.4M, where both laws prefer the larger.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """L(N, D) = irreducible + a / N^alpha + b / D^beta."""

    source: str
    irreducible: float
    a: float
    alpha: float
    b: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats per token. Raises ValueError unless both are positive."""
        if parameters <= 0 or tokens <= 0:
            raise ValueError(f"found {parameters} parameters and {tokens} tokens, needed positive numbers")
        return float(self.irreducible + self.a / parameters**self.alpha + self.b / tokens**self.beta)


HOFFMANN = Law(
    source="Hoffmann et al. 2022, arXiv:2203.15556, section D.3",
    irreducible=1.69,
    a=406.4,
    alpha=0.34,
    b=410.7,
    beta=0.28,
)
BESIROGLU = Law(
    source="Besiroglu et al. 2024, arXiv:2404.10102, table 1",
    irreducible=1.8172,
    a=482.01,
    alpha=0.3478,
    b=2085.43,
    beta=0.3658,
)
