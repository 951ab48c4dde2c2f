"""Let the fine-tuned model answer, verify and judge its answers, and pair the best with the worst.

Reads   models/sft (and models/base where `preferences.checkpoints` names it), the prompts of data/instructions that
        are kept for pairs, plan.json
Writes  candidates.parquet (every distinct answer with its ids, tier, score and reasons),
        preferences.parquet (pairs: the ids of the prompt and of both answers as they were sampled, where they are from,
        margins, and texts for people), unpaired.parquet (answers that surely pass or fail, without a counterpart),
        judges.json, what each judge said and how far it can be believed (rewards/ensemble.py), and contract.json,
        how the pairs fare by the suite `preferences`
Covers: several temperatures and checkpoints; a pair is made of two answers that really differ (pairs/pairing.py);
prompts whose answers do not differ give none. Nothing is cut; what is left out is counted by its reason.
Not covered: pairs from people's feedback.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from components.alignment.config import PreferencesConfig
from components.alignment.examples.chat import stop_ids
from components.alignment.examples.example_contracts import preference_statistics
from components.alignment.examples.instruction import Instruction, read_instructions
from components.alignment.examples.lengths import fitting
from components.alignment.pairs.candidates import CUT, EMPTY, LOOP, Candidate, Checkpoint, Sample, distinct, sample
from components.alignment.pairs.judging import compared, decide
from components.alignment.pairs.pairing import Pair, Unpaired, pair_up, unpaired
from components.alignment.rewards.constitution import Constitution, read_constitution
from components.alignment.rewards.judge import LOCAL
from components.alignment.rewards.model_judge import LikelihoodJudge
from components.alignment.rewards.open import Judges, open_judges
from components.alignment.rewards.revise import revise
from components.alignment.rewards.verifier import Tier, verify
from components.core import artifact
from components.core.artifact import Manifest
from components.core.errors import ConfigError
from components.core.events import Events
from components.core.step import main
from components.data.contracts.contract import Contract
from components.deadline.budget import Budget
from components.execution.sandbox import walls
from components.inference.engine import Completion
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec

STAGE = "preferences"
FINISH_SECONDS = 2.0
"""Kept back in deadline mode for pairing and writing."""


def choose_prompts(config: PreferencesConfig, instructions: Path, codec: TextCodec) -> tuple[list[Instruction], int]:
    """At most `max_prompts` functions to write, those with examples to run first; and how many were left out because
    they are longer than `max_prompt_tokens`. Raises DataError when those are too many."""
    offered = read_instructions(instructions, ["pairs"], kind="function")
    lengths = [len(codec.encode(each.prompt)) for each in offered]
    bounds = (config.max_prompt_tokens, config.max_too_long)
    kept = fitting(lengths, *bounds, where=f"{instructions}: prompts", bound="preferences.max_prompt_tokens")
    short = [offered[each] for each in kept]
    return sorted(short, key=lambda each: not each.examples)[: config.max_prompts], len(offered) - len(short)


def revisions(
    samples: Sequence[Sample], judges: Judges, constitution: Constitution, codec: TextCodec, config: PreferencesConfig
) -> list[Sample]:
    """New answers out of the first one to each prompt, at most one each; none where `revise` is 0."""
    if not config.revise:
        return []
    firsts = list({each.instruction.prompt: each for each in reversed(samples)}.values())[::-1]
    texts = revise(
        judges.reviser,
        constitution,
        [(each.instruction.prompt, each.answer) for each in firsts],
        rounds=config.revise,
        max_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    known = {(each.instruction.prompt, each.answer) for each in samples}
    stop, author = stop_ids(codec.special)[0], judges.reviser.model or LOCAL
    return [
        replace(
            first,
            completion=Completion(tokens=tuple(codec.encode(text)), finish_reason="stop", stop_id=stop),
            answer=text,
            temperature=0.0,
            checkpoint=author,
            author=author,
        )
        for first, text in zip(firsts, texts, strict=True)
        if text is not None and (first.instruction.prompt, text) not in known
    ]


def assess(
    samples: Sequence[Sample], judge: LikelihoodJudge, constitution: Constitution, config: PreferencesConfig
) -> tuple[list[Candidate], Counter[str]]:
    """Verify and score; the candidates in the order given, and how the programs that were run ended."""
    verdicts, outcomes = verify(
        [(each.instruction, each.answer) for each in samples],
        timeout_seconds=config.timeout_seconds,
        memory_bytes=config.memory_bytes,
    )
    scores = judge.scores([(each.instruction.prompt, each.answer) for each in samples])
    candidates = [
        Candidate(
            document=each.instruction.document,
            name=each.instruction.name,
            prompt=each.instruction.prompt,
            answer=each.answer,
            prompt_ids=each.prompt_ids,
            answer_ids=each.completion.ids,
            finish=each.completion.finish_reason,
            log_prob=each.log_prob,
            temperature=each.temperature,
            checkpoint=each.checkpoint,
            has_examples=bool(each.instruction.examples),
            tier=int(verdict.tier),
            verdict=verdict.reason,
            score=score,
            violations=", ".join(constitution.violations(each.answer)),
            judge=judge.name,
            author=each.author,
            defect=each.defect,
        )
        for each, verdict, score in zip(samples, verdicts, scores, strict=True)
    ]
    return candidates, Counter(outcome.cause for outcome in outcomes)


def statistics_of(candidates: Sequence[Candidate], pairs: Sequence[Pair]) -> dict[str, int | float | dict[str, int]]:
    """Counts and shares over distinct answers; a share is absent where nothing could have it."""
    runnable = [each for each in candidates if each.has_examples]
    tiers = Counter(Tier(each.tier).name.lower() for each in candidates)
    figures: dict[str, int | float | dict[str, int]] = {
        "prompts": len({each.prompt for each in candidates}),
        "prompts_with_examples": len({each.prompt for each in runnable}),
        "candidates": len(candidates),
        "candidates_with_examples": len(runnable),
        "candidates_without_score": sum(each.score is None for each in candidates),
        "candidates_finished": sum(each.finish == "stop" for each in candidates),
        "candidates_by_defect": {name: sum(each.defect == name for each in candidates) for name in (EMPTY, LOOP, CUT)},
        "candidates_breaking_a_principle": sum(bool(each.violations) for each in candidates),
        "tiers": {tier.name.lower(): tiers[tier.name.lower()] for tier in Tier},
        "pairs": len(pairs),
        "pairs_by_reason": dict(sorted(Counter(each.reason.split(":")[0] for each in pairs).items())),
    }
    if candidates:
        figures["share_compiling"] = sum(each.tier >= Tier.COMPILES for each in candidates) / len(candidates)
        figures["share_resolving"] = sum(each.tier >= Tier.RESOLVES for each in candidates) / len(candidates)
    if runnable:
        figures["share_running"] = sum(each.tier >= Tier.RUNS for each in runnable) / len(runnable)
        figures["share_passing"] = sum(each.tier >= Tier.PASSES for each in runnable) / len(runnable)
    return figures


def _chunks(
    prompts: Sequence[Instruction], config: PreferencesConfig, budget: Budget, events: Events
) -> Iterator[list[Instruction]]:
    """Prompts in chunks, until the clock leaves no room for another one as slow as the slowest so far."""
    slowest, last, size = 0.0, budget.elapsed_seconds, config.chunk_prompts
    for number in range(math.ceil(len(prompts) / size))[: config.max_chunks]:
        left = budget.seconds_left
        if number and left is not None and left < slowest:
            events.note(f"time is up after {number * size} of {len(prompts)} prompts")
            return
        yield list(prompts[number * size : (number + 1) * size])
        slowest, last = max(slowest, budget.elapsed_seconds - last), budget.elapsed_seconds
        events.progress(min(len(prompts), (number + 1) * size), len(prompts), "prompts")


def read_checkpoints(config: PreferencesConfig, paths: dict[str, Path | None]) -> dict[str, Manifest]:
    """The artifacts of the checkpoints that answer, in the order that the parameter names them.

    Raises ConfigError for one whose directory the stage was not given.
    """
    given = {name: path for name in config.checkpoints if (path := paths[name]) is not None}
    if missing := [name for name in config.checkpoints if name not in given]:
        raise ConfigError(
            f"preferences.checkpoints names {missing[0]}, which this stage was not given; needed --{missing[0]} with "
            "its directory"
        )
    return {name: artifact.read(path) for name, path in given.items()}


@dataclass(slots=True, kw_only=True)
class Assessed:
    """What the chunks have given so far."""

    candidates: list[Candidate] = field(default_factory=list)
    proposals: list[Pair] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    chunks: int = 0

    def statistics(self, prompts_too_long: int) -> dict[str, Any]:
        """How much was sampled, what was left out and why, what the clock decided, how the programs ended."""
        return {
            "samples": self.samples,
            "dropped": {"prompt_too_long": prompts_too_long, "same_answer": self.samples - len(self.candidates)},
            "decided": {"max_chunks": self.chunks or None},
            "programs_by_ending": dict(sorted(self.endings.items())),
        }


def assess_chunks(
    chunks: Iterator[list[Instruction]],
    checkpoints: Sequence[Checkpoint],
    judges: Judges,
    constitution: Constitution,
    codec: TextCodec,
    config: PreferencesConfig,
) -> Assessed:
    """Sample every chunk of prompts from every checkpoint, verify what it gave, and show judges what may differ."""
    done = Assessed()
    for number, chunk in enumerate(chunks):
        seeds = [config.seed + 1000 * number + 100 * place for place in range(len(checkpoints))]
        samples = [
            each
            for checkpoint, seed in zip(checkpoints, seeds, strict=True)
            for each in sample(checkpoint, codec, chunk, config, seed)
        ]
        once = distinct(samples)
        once += revisions(once, judges, constitution, codec, config)
        candidates, endings = assess(once, judges.likelihood, constitution, config)
        # Judges see every two answers that may differ; their verdicts, not the likelihood, say whether they do.
        pairs = pair_up(
            candidates,
            min_score_gap=0.0,
            require_compiling=config.require_compiling,
            max_pairs_per_prompt=config.max_pairs_per_prompt,
        )
        judges.ensemble.judge(compared(pairs))
        done.proposals.extend(pairs)
        done.candidates.extend(candidates)
        done.endings.update(endings)
        done.samples += len(samples)
        done.chunks = number + 1
    return done


def run(
    config: PreferencesConfig,
    *,
    sft: Path,
    instructions: Path,
    plan: Path,
    out: Path,
    base: Path | None = None,
) -> Manifest:
    """Sample, verify, judge and pair; see the module. `base` is read where `preferences.checkpoints` names it."""
    events = Events(STAGE)
    budget = Budget.read(plan, STAGE).keep(FINISH_SECONDS)
    paths = {"tuned": sft, "base": base}
    checkpoints = read_checkpoints(config, paths)
    inputs = [artifact.read(path) for path in (sft, instructions, plan)]
    inputs += [each for name, each in checkpoints.items() if name != "tuned"]
    codec = TextCodec(sft)
    bounds = {"min_score_gap": config.min_score_gap, "max_pairs_per_prompt": config.max_pairs_per_prompt}
    contract = Contract("preferences", config.contract, events, bounds)
    constitution = read_constitution()
    prompts, too_long = choose_prompts(config, instructions, codec)
    events.note(f"{len(prompts)} prompts, {sum(bool(each.examples) for each in prompts)} with examples that run")
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(closing(open_engine(path)))
            for name, path in paths.items()
            if path is not None and name in {"tuned", *checkpoints}
        }
        judges = open_judges(config, constitution, opened["tuned"], codec)
        answering = [Checkpoint(digest=each.digest, engine=opened[name]) for name, each in checkpoints.items()]
        chunks = _chunks(prompts, config, budget, events)
        done = assess_chunks(chunks, answering, judges, constitution, codec, config)
    verdicts, report = judges.ensemble.conclude()
    for line in report.lines:
        events.note(line)
    pairs = decide(done.proposals, verdicts, min_score_gap=config.min_score_gap, judges=", ".join(report.judges_kept))
    events.note(f"{len(pairs)} pairs from {len(prompts)} prompts; the others' answers do not differ enough")
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        tables = write_tables(draft, done.candidates, pairs)
        verdict = contract.require(preference_statistics(tables["preferences.parquet"]), where=out)
        contract.write_report(verdict, draft.path)
        report.write(draft.path, tokens=judges.tokens)
        draft.statistics = {
            **statistics_of(done.candidates, pairs),
            **done.statistics(too_long),
            "unpaired": tables["unpaired.parquet"].height,
            "checkpoints": {name: each.digest for name, each in checkpoints.items()},
            "judges": list(report.judges_kept),
            "decided_by": report.decided_by,
            "constitution_digest": constitution.digest,
        }
        events.metrics({name: each for name, each in draft.statistics.items() if isinstance(each, int | float)})
        draft.run = {"isolation": walls(), "judges": judges.usage, **budget.record()}
    assert draft.manifest is not None
    return draft.manifest


def write_tables(
    draft: artifact.Draft, candidates: Sequence[Candidate], pairs: Sequence[Pair]
) -> dict[str, pl.DataFrame]:
    """The three tables of the artifact, written; by the names of their files."""
    tables = {
        "candidates.parquet": table_of(Candidate, candidates),
        "preferences.parquet": table_of(Pair, pairs),
        "unpaired.parquet": table_of(Unpaired, unpaired(candidates, pairs)),
    }
    for name, table in tables.items():
        table.write_parquet(draft.path / name, compression="zstd")
        draft.rows[name] = table.height
    return tables


IDS = tuple[int, ...]
TYPES: dict[object, pl.DataType | type[pl.DataType]] = {
    str: pl.String,
    float: pl.Float64,
    float | None: pl.Float64,
    bool: pl.Boolean,
    int: pl.Int32,
    IDS: pl.List(pl.Int32),
}
Record = TypeVar("Record", Candidate, Pair, Unpaired)


def table_of(kind: type[Record], rows: Sequence[Record]) -> pl.DataFrame:
    """Records as a table, with its columns even when there are none."""
    return pl.DataFrame(
        {
            name: pl.Series([getattr(each, name) for each in rows], dtype=TYPES[annotation])
            for name, annotation in kind.__annotations__.items()
        }
    )


if __name__ == "__main__":
    main(STAGE, PreferencesConfig, run)
