"""See benchmarks.alignment.generate."""

from benchmarks.alignment.generate import run

__all__ = ["run"]
