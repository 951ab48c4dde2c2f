"""Ours against peers, side by side: `python -m benchmarks AREA`. Peers live in an environment of their own."""
