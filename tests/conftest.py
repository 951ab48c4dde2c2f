"""Set before any test imports torch or ray: what those read when they are imported."""

import os

# Small models on shared cores: a second thread that spins while it waits made some tests twenty times slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import components  # noqa: F401  telemetry off, Ray on loopback
