"""Held-out bits per byte after 150 seconds of training, compilation left out; every run is another seed."""

from benchmarks.harness import Comparison
from benchmarks.training.learning import agree, prepare

COMPARISON = Comparison(
    name="bits per byte after 150 s",
    unit="bits/byte",
    peers={"hf_defaults": 1.0, "muon_loop": 1.0, "nanochat": 1.0},
    peers_in_our_environment=True,
)
__all__ = ["COMPARISON", "agree", "prepare"]
