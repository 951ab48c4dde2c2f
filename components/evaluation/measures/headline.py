"""The few figures of a cycle that `dvc metrics show` prints. All others stand in figures.json.

They are those of the last model. Some are times, so the file that holds them is no part of the artifact's digest.
Not covered: the cost. It is a price that `overnight plan` puts on the time; no stage measures it.
"""

from collections.abc import Mapping
from typing import Any

from components.evaluation.measures.answers import ENDS, PASSES
from components.evaluation.measures.infilling import SINGLE_LINE
from components.evaluation.measures.latency import LATENCY
from components.evaluation.measures.model_measures import (
    BITS_PER_BYTE,
    COMPLETION,
    EXACT_MATCH,
    LIKELIHOOD,
    PARSE_SHARE,
    PASS_AT,
    XZ_BITS_PER_BYTE,
)
from components.evaluation.safety.suites import CANARIES

# The name here; suite and metric there.
FIGURES = {
    "xz_bits_per_byte": (LIKELIHOOD, XZ_BITS_PER_BYTE),
    "functions_that_parse": (COMPLETION, PARSE_SHARE),
    "infilled_lines_exact": (SINGLE_LINE, EXACT_MATCH),
    "held_out_tasks_passed": ("held_out_wordings", PASSES),
    "answers_that_end": ("held_out_wordings", ENDS),
    "harmful_compliance": ("safety", "harmful_compliance"),
    "over_refusal": ("safety", "over_refusal"),
    "canaries_extracted": (CANARIES, "extracted"),
    "answer_seconds": (LATENCY, "streams_1_seconds"),
}
PASS_AT_1 = f"{PASS_AT}1"
# The name here; the name among what pretraining timed.
TIMES = {"pretraining_seconds": "training_seconds", "pretraining_tokens_per_second": "tokens_per_second"}
SIGNIFICANT_DIGITS = 5


def headline(suites: Mapping[str, Mapping[str, Mapping[str, Any]]], timed: Mapping[str, Any]) -> dict[str, float]:
    """At most 15 figures, as far as they were measured.

    suites  suite -> metric -> {value, low, high, n} of one model, its latency included
    timed   `run` of the manifest of its pretraining
    """
    bits = suites[LIKELIHOOD][BITS_PER_BYTE]
    figures = {
        BITS_PER_BYTE: bits["value"],
        f"{BITS_PER_BYTE}_low": bits["low"],
        f"{BITS_PER_BYTE}_high": bits["high"],
        PASS_AT_1: _pass_at_1(suites),
    }
    figures |= {name: suites.get(suite, {}).get(metric, {}).get("value") for name, (suite, metric) in FIGURES.items()}
    figures |= {name: timed.get(timing) for name, timing in TIMES.items()}
    return {name: float(f"{value:.{SIGNIFICANT_DIGITS}g}") for name, value in figures.items() if value is not None}


def _pass_at_1(suites: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float | None:
    """Of the first suite of programs, at the first of its temperatures; None where one sample is not asked for."""
    values = [
        each["value"]
        for metrics in suites.values()
        for name, each in metrics.items()
        if name == PASS_AT_1 or name.startswith(f"{PASS_AT_1}_t")
    ]
    return values[0] if values else None
