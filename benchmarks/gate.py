"""How often the gate promotes what it should not, and what it should: by simulation, and on trainings of one recipe.

    python -m benchmarks.gate simulate [--trials 4000] [--seed 0]
    python -m benchmarks.gate replicates EVALUATION EVALUATION EVALUATION... [--metric likelihood/bits_per_byte]

simulate    Each scenario draws the items of two models again and again. Where there is no difference every promotion is
            false; beside the gate's rate stands that of the same gate without the protection that the scenario is
            about. Then how often it refuses models that are no worse, and the power: how often a true improvement is
            promoted.
replicates  Evaluations (as `overnight evaluate --out` keeps them, or DIR:MODEL) of trainings that differ in the seed
            alone: the deviation between them, for release.criteria, and how often one is promoted over another, over
            all ordered pairs: with the items' error alone, with the configured deviation, and with the one that the
            other trainings give. Pairs share trainings, so the rate of k trainings rests on k draws, not on k (k - 1).
Both print Markdown and write reports/bench/gate_<what>.json.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.core.artifact import write_file
from components.core.errors import OvernightError
from components.evaluation.comparison.compare import Sides, combine, judge, pairs_for
from components.evaluation.comparison.criteria import Criteria, Guard, Primary
from components.evaluation.comparison.pairs import Paired, Replicates, deviation_between
from flows.commands.measuring import contaminated_in, read_evaluation
from flows.running.params import read_params

REPORTS = Path("reports") / "bench"
DOCUMENTS, FUNCTIONS, FUNCTION_DOCUMENTS = 50, 80, 30  # of the smoke profile, without contaminated ones
DEVIATION, RUNS = 0.01, 7
BITS = "likelihood/bits_per_byte"
PARSE = "completion/parse_share"
REFUSAL = "safety/over_refusal"
SECONDS = "speed/seconds"
LOOKS = 5

Generator = np.random.Generator
Trial = Callable[[Generator], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is true of a candidate, and how it is measured. Improvements are above zero, in the metric's unit."""

    bits: float = 0.0
    parse: float = 0.0
    over_refusal: float = 0.0
    slower: float = 0.0
    documents: int = DOCUMENTS
    deviation: float = 0.0
    deviation_of_documents: float = 0.06

    def noise(self, generator: Generator) -> float:
        """What two other seeds would have changed."""
        return float(generator.normal(0, self.deviation * 2**0.5))

    def bits_pair(self, generator: Generator) -> Paired:
        """Skewed differences of documents of unequal sizes."""
        scale = self.deviation_of_documents / 2
        skewed = generator.gamma(1.0, scale, self.documents) - scale + generator.normal(0, scale, self.documents)
        weights = generator.lognormal(0, 0.8, self.documents)
        return Paired(differences=self.noise(generator) - self.bits + skewed, weights=weights)

    def parse_pair(self, generator: Generator) -> Paired:
        """Functions of some documents, which tend to pass or fail together."""
        return shares(generator, FUNCTIONS, FUNCTION_DOCUMENTS, self.parse, alike=0.3)

    def pairs(self, generator: Generator) -> dict[str, Paired]:
        """All metrics; latency as logarithms of seconds."""
        seconds = generator.normal(self.slower, 0.15, 60)
        return {
            BITS: self.bits_pair(generator),
            PARSE: self.parse_pair(generator),
            REFUSAL: shares(generator, 200, 200, -self.over_refusal, alike=0.0, rate=0.04),
            SECONDS: Paired(differences=seconds, weights=np.ones(60)),
        }


def shares(generator: Generator, items: int, groups: int, shift: float, *, alike: float, rate: float = 0.1) -> Paired:
    """Passes of two models on items of groups: each alone right on the share `rate` of them, the candidate on `shift`
    more; with the probability `alike` an item does as its group does."""
    shares_of = [rate + max(shift, 0.0), rate + max(-shift, 0.0)]
    outcomes = np.array([1.0, -1.0, 0.0])
    chances = [*shares_of, 1 - sum(shares_of)]
    codes = np.sort(np.concatenate([np.arange(groups), generator.integers(0, groups, items - groups)]))
    together = generator.choice(outcomes, size=groups, p=chances)[codes]
    alone = generator.choice(outcomes, size=items, p=chances)
    differences = np.where(generator.random(items) < alike, together, alone)
    return Paired(differences=differences, weights=np.ones(items), groups=codes.astype(np.uint32), shares=True)


def criteria(*, guards: bool = True, deviation: float = 0.0, runs: int = RUNS) -> Criteria:
    """The defaults, with three guards of different kinds, and fewer resamples, for speed."""
    primary = Primary(metric=BITS, better="lower", replicate_deviation=deviation, replicate_runs=runs)
    kept = (
        *(each for each in Criteria().guards if each.metric == PARSE),
        Guard(metric=REFUSAL, better="lower", margin=0.1),
        Guard(metric=SECONDS, better="lower", scale="ratio", margin=0.1),
    )
    return Criteria(primaries=(primary,), guards=kept if guards else (), resamples=2000)


def promoted(chosen: Criteria, pairs: Mapping[str, Paired], look: int = 1) -> bool:
    """What the gate says of one draw."""
    return combine(judge(chosen, pairs, look)).outcome == "promote"


def refused(chosen: Criteria, pairs: Mapping[str, Paired]) -> bool:
    """Whether the gate says that a candidate is worse."""
    return combine(judge(chosen, pairs)).outcome == "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A true state; `trial` draws whether the gate does what is counted, `without` the same without one protection."""

    name: str
    trial: Trial
    protection: str = ""
    without: Trial | None = None


def false_promotions() -> list[Scenario]:
    """Candidates that are no better, or that are worse by a guard's margin."""
    equal, alone, all_of = World(), criteria(guards=False), criteria()
    seeds = World(deviation=DEVIATION)
    return [
        Scenario(name="one metric, 50 documents", trial=lambda g: promoted(alone, {BITS: equal.bits_pair(g)})),
        Scenario(
            name="one metric, 20 documents",
            trial=lambda g: promoted(alone, {BITS: replace(equal, documents=20).bits_pair(g)}),
        ),
        Scenario(name="three guards beside it", trial=lambda g: promoted(all_of, equal.pairs(g))),
        Scenario(
            name="four primary metrics, correlated",
            trial=lambda g: _any_of_four(g, corrected=True),
            protection="Holm",
            without=lambda g: _any_of_four(g, corrected=False),
        ),
        Scenario(
            name="240 lines of 30 documents, alike",
            trial=lambda g: _lines(g, grouped=True),
            protection="groups",
            without=lambda g: _lines(g, grouped=False),
        ),
        Scenario(
            name="another seed, deviation from 7 earlier runs",
            trial=lambda g: promoted(_measured(g), {BITS: seeds.bits_pair(g)}),
            protection="trainings' error",
            without=lambda g: promoted(alone, {BITS: seeds.bits_pair(g)}),
        ),
        Scenario(
            name="other seeds, three runs on each side",
            trial=lambda g: _replicated(g, 0.0, with_noise=True),
            protection="trainings' error",
            without=lambda g: _replicated(g, 0.0, with_noise=False),
        ),
        Scenario(
            name=f"{LOOKS} looks as documents come in",
            trial=lambda g: _looked(g, spending=True),
            protection="spending",
            without=lambda g: _looked(g, spending=False),
        ),
        Scenario(
            name="all of it: seed, guards, looks",
            trial=lambda g: _looked(g, spending=True, world=seeds, guarded=True),
        ),
        Scenario(
            name="better, over-refusal worse by the margin",
            trial=lambda g: promoted(all_of, World(bits=0.1, parse=0.1, over_refusal=-0.1).pairs(g)),
            protection="guards",
            without=lambda g: promoted(alone, World(bits=0.1).pairs(g)),
        ),
        Scenario(
            name="better, slower by the margin",
            trial=lambda g: promoted(all_of, World(bits=0.1, parse=0.1, slower=np.log(1.1)).pairs(g)),
        ),
    ]


def false_refusals() -> list[Scenario]:
    """Candidates that are no worse, or in a guard exactly by what it allows."""
    allowed = World(bits=0.1, parse=-0.15, over_refusal=-0.1, slower=np.log(1.1))
    return [
        Scenario(name="equal in all metrics", trial=lambda g: refused(criteria(), World().pairs(g))),
        Scenario(name="better, each guard worse by its margin", trial=lambda g: refused(criteria(), allowed.pairs(g))),
        Scenario(
            name="another seed, deviation from 7 earlier runs",
            trial=lambda g: refused(_measured(g), {BITS: World(deviation=DEVIATION).bits_pair(g)}),
        ),
    ]


def power() -> list[Scenario]:
    """Candidates that are better."""
    found = []
    for bits in (0.02, 0.03, 0.05, 0.08):
        world = World(bits=bits, deviation=DEVIATION)
        found += [
            Scenario(
                name=f"better by {bits} bits per byte, one run each",
                trial=lambda g, world=world: promoted(_measured(g), {BITS: world.bits_pair(g)}),  # type: ignore[misc]
            ),
            Scenario(
                name=f"better by {bits}, three runs each",
                trial=lambda g, bits=bits: _replicated(g, bits, with_noise=True),  # type: ignore[misc]
            ),
            Scenario(
                name=f"better by {bits}, one run each, guards equal",
                trial=lambda g, world=world: promoted(  # type: ignore[misc]
                    criteria(deviation=DEVIATION), world.pairs(g)
                ),
            ),
        ]
    return found


def _any_of_four(generator: Generator, *, corrected: bool) -> bool:
    """Four metrics, half of whose noise is shared: promoted when one is better, after Holm's correction or without."""
    names = [f"suite/metric_{number}" for number in range(4)]
    shared = generator.normal(0, 0.05, DOCUMENTS)
    pairs = {
        name: Paired(differences=shared + generator.normal(0, 0.05, DOCUMENTS), weights=np.ones(DOCUMENTS))
        for name in names
    }
    primaries = tuple(Primary(metric=name, better="higher") for name in names)
    if corrected:
        return promoted(Criteria(primaries=primaries, guards=(), resamples=2000), pairs)
    return any(promoted(Criteria(primaries=(each,), guards=(), resamples=2000), pairs) for each in primaries)


def _lines(generator: Generator, *, grouped: bool) -> bool:
    pair = shares(generator, 240, 30, 0.0, alike=0.7)
    chosen = Criteria(primaries=(Primary(metric=PARSE, better="higher"),), guards=(), resamples=2000)
    return promoted(chosen, {PARSE: pair if grouped else replace(pair, groups=None)})


def _measured(generator: Generator) -> Criteria:
    """Criteria whose deviation was estimated from as many runs as they say."""
    runs = generator.normal(0, DEVIATION, RUNS)
    return criteria(guards=False, deviation=float(runs.std(ddof=1)))


def _replicated(generator: Generator, bits: float, *, with_noise: bool, runs: int = 3) -> bool:
    """Runs of each side with known figures; items as ever."""
    sides = generator.normal(0, DEVIATION, (2, runs))
    pair = World(bits=bits + float(sides[0].mean() - sides[1].mean())).bits_pair(generator)
    pooled = float(sides.var(axis=1, ddof=1).mean() ** 0.5)
    noise = Replicates(deviation=pooled, degrees_of_freedom=2 * (runs - 1), candidate_runs=runs, champion_runs=runs)
    return promoted(criteria(guards=False), {BITS: replace(pair, replicates=noise if with_noise else None)})


def _looked(generator: Generator, *, spending: bool, world: World | None = None, guarded: bool = False) -> bool:
    """The same candidate again and again with more documents: promoted at any look."""
    world = world or World()
    whole = replace(world, documents=LOOKS * DOCUMENTS).pairs(generator)
    bits = whole[BITS]
    for look in range(1, LOOKS + 1):
        seen = slice(0, look * DOCUMENTS)
        pairs = {**whole, BITS: Paired(differences=bits.differences[seen], weights=bits.weights[seen])}
        chosen = criteria(guards=guarded, deviation=world.deviation)
        if promoted(chosen, pairs, look if spending else 1):
            return True
    return False


def rate(trial: Trial, trials: int, seed: int) -> float:
    """How often a trial promotes, each with a generator of its own."""
    return sum(trial(np.random.default_rng([seed, number])) for number in range(trials)) / trials


def simulate(scenarios: Sequence[Scenario], trials: int, seed: int) -> list[dict[str, Any]]:
    """One row per scenario: the rate of what is counted, its standard error, and the rate without the protection."""
    rows = []
    for each in scenarios:
        found = rate(each.trial, trials, seed)
        rows.append(
            {
                "scenario": each.name,
                "rate": found,
                "standard_error": (found * (1 - found) / trials) ** 0.5,
                "protection": each.protection,
                "without": rate(each.without, trials, seed) if each.without else None,
                "trials": trials,
            }
        )
    return rows


def replicate_rates(
    items: Sequence[pl.DataFrame], chosen: Criteria, metric: str = BITS, contaminated: pl.DataFrame | None = None
) -> dict[str, Any]:
    """The deviation between trainings of one recipe, and how often one of them is promoted over another.

    Raises OvernightError for fewer than three, and DataError where they were not asked the same.
    """
    if len(items) < 3:
        raise OvernightError(f"{len(items)} evaluations: needed 3 at least, of trainings that differ in the seed alone")
    deviations = {
        each.metric: deviation_between([items], *_split(each.metric), each.scale)
        for each in chosen.deciding
        if all(each.metric in _names(one) for one in items)
    }
    primary = next((each for each in chosen.primaries if each.metric == metric), None)
    if primary is None or metric not in deviations:
        raise OvernightError(f"{metric} is no primary metric that all evaluations have; there are {_names(items[0])}")
    counts = {"items_alone": 0, "configured": 0, "other_trainings": 0}
    ordered = list(permutations(range(len(items)), 2))
    for candidate, champion in ordered:
        sides = Sides(candidates=(items[candidate],), champions=(items[champion],), contaminated=contaminated)
        rest = [each for number, each in enumerate(items) if number not in (candidate, champion)]
        others = deviation_between([rest], *_split(metric), primary.scale)
        for kind, changes in (
            ("items_alone", {"replicate_deviation": 0.0}),
            ("configured", {}),
            (
                "other_trainings",
                {"replicate_deviation": others[0], "replicate_runs": others[1] + 1} if others else None,
            ),
        ):
            if changes is not None:
                alone = chosen.model_copy(update={"primaries": (primary.model_copy(update=changes),), "guards": ()})
                counts[kind] += promoted(alone, pairs_for(alone, sides))
    return {
        "metric": metric,
        "trainings": len(items),
        "pairs": len(ordered),
        "deviations": {
            key: {"deviation": found[0], "runs": found[1] + 1} for key, found in deviations.items() if found
        },
        "false_promotions": {
            kind: None if kind == "other_trainings" and len(items) < 4 else count / len(ordered)
            for kind, count in counts.items()
        },
    }


def _split(metric: str) -> tuple[str, str]:
    suite, name = metric.split("/")
    return suite, name


def _names(items: pl.DataFrame) -> list[str]:
    return ["/".join(each) for each in items.select("suite", "metric").unique(maintain_order=True).rows()]


def markdown(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `simulate` as a table."""
    lines = [f"| {title} | rate | without protection |", "| --- | --- | --- |"]
    for row in rows:
        without = "" if row["without"] is None else f"{row['without']:.1%} without {row['protection']}"
        lines.append(f"| {row['scenario']} | {row['rate']:.1%} ± {row['standard_error']:.1%} | {without} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two; 2 for evaluations that cannot be used."""
    parser = argparse.ArgumentParser(prog="benchmarks.gate", description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    simulation = commands.add_parser("simulate")
    simulation.add_argument("--trials", type=int, default=4000)
    simulation.add_argument("--seed", type=int, default=0)
    trainings = commands.add_parser("replicates")
    trainings.add_argument("evaluations", nargs="+", metavar="EVALUATION")
    trainings.add_argument("--metric", default=BITS)
    options = parser.parse_args(arguments)
    REPORTS.mkdir(parents=True, exist_ok=True)
    try:
        found: dict[str, Any]
        if options.command == "simulate":
            found = {}
            for title, scenarios in (
                ("promoted although no better", false_promotions()),
                ("refused although no worse", false_refusals()),
                ("promoted when better", power()),
            ):
                found[title] = simulate(scenarios, options.trials, options.seed)
                print(markdown(title, found[title]), end="\n\n", flush=True)
        else:
            items, marked = zip(*(read_evaluation(each) for each in options.evaluations), strict=True)
            chosen = read_params().release.criteria
            found = replicate_rates(items, chosen, options.metric, contaminated_in(marked))
            print(json.dumps(found, indent=1))
    except OvernightError as error:
        print(f"gate: {error}", file=sys.stderr)
        return error.exit_code
    path = REPORTS / f"gate_{options.command}.json"
    write_file(path, (json.dumps(found, indent=1) + "\n").encode())
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
