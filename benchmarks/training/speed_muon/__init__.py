"""Tokens per second with Muon for the matrices, as the stage trains: ours against a plain compiled loop.

Model, batches and limit are those of `speed`. The products of Muon's five Newton-Schulz steps are 35 GFLOP beside the
model's 96 in a step of 2,048 tokens, and are not counted in the share of the limit.
"""

from benchmarks.harness import Comparison
from benchmarks.training.speed import COMPARISON as SPEED
from benchmarks.training.speed import agree, prepare

COMPARISON = Comparison(
    name="training speed with Muon",
    unit=SPEED.unit,
    peers={"plain_loop": 1.0},
    limit_name=SPEED.limit_name,
    peers_in_our_environment=True,
)
__all__ = ["COMPARISON", "agree", "prepare"]
