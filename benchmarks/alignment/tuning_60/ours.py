"""See benchmarks.alignment.own_tuning."""

from benchmarks.alignment.own_tuning import run

__all__ = ["run"]
