"""The few figures that DVC shows."""

from components.evaluation.measures.headline import headline

BITS = {"bits_per_byte": {"value": 1.2345678, "low": 1.2, "high": 1.3, "n": 40}}


def test_what_was_not_measured_is_left_out() -> None:
    """A model without programs, safety suites and times, as of a checkpoint that was adopted."""
    assert headline({"likelihood": BITS}, {}) == {
        "bits_per_byte": 1.2346,
        "bits_per_byte_low": 1.2,
        "bits_per_byte_high": 1.3,
    }


def test_the_first_temperature_of_the_first_suite_speaks_for_programs() -> None:
    suites = {
        "likelihood": BITS,
        "short_tasks": {name: {"value": value} for name, value in {"pass_at_10": 0.9, "pass_at_1_t0.2": 0.3}.items()},
        "more_tasks": {"pass_at_1_t0.2": {"value": 0.7}},
    }
    found = headline(suites, {"training_seconds": 131.25, "tokens_per_second": 15_803.4, "host": "a"})
    assert found["pass_at_1"] == 0.3
    assert (found["pretraining_seconds"], found["pretraining_tokens_per_second"]) == (131.25, 15_803.0)


def test_there_are_at_most_fifteen() -> None:
    everything = {
        "likelihood": BITS | {"xz_bits_per_byte": {"value": 2.0}},
        "completion": {"parse_share": {"value": 0.5}, "exact_match": {"value": 0.5}},
        "infilling": {"exact_match": {"value": 0.1}},
        "short_tasks": {"pass_at_1": {"value": 0.0}},
        "held_out_wordings": {"passes": {"value": 0.2}, "ends": {"value": 0.9}},
        "safety": {"harmful_compliance": {"value": 0.0}, "over_refusal": {"value": 0.0}, "refusal": {"value": 1.0}},
        "canaries": {"extracted": {"value": 0.0}},
        "latency": {"streams_1_seconds": {"value": 0.1}, "streams_16_seconds": {"value": 0.2}},
    }
    assert len(headline(everything, {"training_seconds": 1.0, "tokens_per_second": 1.0})) == 15
