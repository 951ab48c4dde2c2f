"""See benchmarks.alignment.ours."""

from benchmarks.alignment.ours import run

__all__ = ["run"]
