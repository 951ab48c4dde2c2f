"""Let the fine-tuned model answer, verify and judge its answers, and pair the best with the worst.

Reads   models/sft, the prompts of data/instructions that are kept for pairs, plan.json
Writes  candidates.parquet (every distinct answer with its tier, score and reasons),
        preferences.parquet (prompt, chosen, rejected, chosen_score, rejected_score, judge, reason, tiers, authors),
        judges.json, what each judge said and how far it can be believed (rewards/ensemble.py), and
        contract.json, how the pairs fare by the suite `preferences`
Covers: a pair is made of two answers that really differ, by the verifier's tier or by the verdict of judges; prompts
whose answers do not differ give none, and the statistics say how many.
Not covered: pairs from people's feedback, more than one pair per prompt.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from components.alignment.config import PreferencesConfig
from components.alignment.examples.chat import prompt_tokens, stop_ids
from components.alignment.examples.example_contracts import preference_statistics
from components.alignment.examples.instruction import Instruction, read_instructions
from components.alignment.rewards.constitution import Constitution, read_constitution
from components.alignment.rewards.judge import HIGHEST_GRADE, AnswerPair, Verdict
from components.alignment.rewards.model_judge import LOCAL, LikelihoodJudge
from components.alignment.rewards.open import Judges, open_judges
from components.alignment.rewards.revise import revise
from components.alignment.rewards.verifier import Tier, verify
from components.core import artifact
from components.core.artifact import Manifest
from components.core.events import Events
from components.core.step import main
from components.data.contracts.contract import Contract
from components.deadline.budget import Budget
from components.execution.sandbox import walls
from components.inference.engine import Engine, Sampling
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec

STAGE = "preferences"
FINISH_SECONDS = 2.0
"""Kept back in deadline mode for pairing and writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One distinct answer to one prompt, and what was found about it. `score` is None where the judge gave none."""

    document: str
    name: str
    prompt: str
    answer: str
    temperature: float
    finished: bool
    has_examples: bool
    tier: int
    verdict: str
    score: float | None
    violations: str
    judge: str
    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one prompt, of which the first is better."""

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    judge: str
    reason: str
    chosen_tier: int
    rejected_tier: int
    chosen_author: str
    rejected_author: str


def choose_prompts(config: PreferencesConfig, instructions: Path, codec: TextCodec) -> list[Instruction]:
    """Functions to write whose prompts are short enough, at most `max_prompts`; those with examples to run first."""
    offered = read_instructions(instructions, ["pairs"], kind="function")
    short = [each for each in offered if len(codec.encode(each.prompt)) <= config.max_prompt_tokens]
    return sorted(short, key=lambda each: not each.examples)[: config.max_prompts]


def sample(
    engine: Engine, codec: TextCodec, prompts: Sequence[Instruction], config: PreferencesConfig, seed: int
) -> list[tuple[Instruction, str, float, bool]]:
    """Distinct answers in the order of the prompts: instruction, answer, lowest temperature that gave it, finished."""
    ids = [prompt_tokens(codec.encode(each.prompt), special=codec.special) for each in prompts]
    samples: dict[tuple[str, str], tuple[Instruction, str, float, bool]] = {}
    for number, temperature in enumerate(sorted(config.temperatures)):
        sampling = Sampling(
            max_new_tokens=config.max_new_tokens,
            temperature=temperature,
            top_p=config.top_p,
            num_samples=config.num_samples if temperature else 1,
            seed=seed + number,
        )
        answers = engine.generate(ids, sampling, stop_ids=stop_ids(codec.special))
        for prompt, completions in zip(prompts, answers, strict=True):
            for completion in completions:
                answer = codec.decode(completion.tokens)
                key = (prompt.prompt, answer)
                samples.setdefault(key, (prompt, answer, temperature, completion.finish_reason == "stop"))
    order = {each.prompt: number for number, each in enumerate(prompts)}
    return sorted(samples.values(), key=lambda each: (order[each[0].prompt], each[2], each[1]))


def revisions(
    answers: Sequence[tuple[Instruction, str, float, bool]],
    judges: Judges,
    constitution: Constitution,
    config: PreferencesConfig,
) -> list[tuple[Instruction, str, float, bool]]:
    """New answers out of the first one to each prompt, at most one each; none where `revise` is 0."""
    if not config.revise:
        return []
    firsts = list({each[0].prompt: each for each in reversed(answers)}.values())[::-1]
    texts = revise(
        judges.reviser,
        constitution,
        [(instruction.prompt, answer) for instruction, answer, _, _ in firsts],
        rounds=config.revise,
        max_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    known = {(instruction.prompt, answer) for instruction, answer, _, _ in answers}
    return [
        (instruction, text, 0.0, True)
        for (instruction, _, _, _), text in zip(firsts, texts, strict=True)
        if text is not None and (instruction.prompt, text) not in known
    ]


def assess(
    answers: Sequence[tuple[Instruction, str, float, bool]],
    judge: LikelihoodJudge,
    constitution: Constitution,
    config: PreferencesConfig,
    author: str = LOCAL,
) -> tuple[list[Candidate], Counter[str]]:
    """Verify and score; the candidates in the order given, and how the programs that were run ended."""
    verdicts, outcomes = verify(
        [(instruction, answer) for instruction, answer, _, _ in answers],
        timeout_seconds=config.timeout_seconds,
        memory_bytes=config.memory_bytes,
    )
    scores = judge.scores([(instruction.prompt, answer) for instruction, answer, _, _ in answers])
    candidates = [
        Candidate(
            document=instruction.document,
            name=instruction.name,
            prompt=instruction.prompt,
            answer=answer,
            temperature=temperature,
            finished=finished,
            has_examples=bool(instruction.examples),
            tier=int(verdict.tier),
            verdict=verdict.reason,
            score=score,
            violations=", ".join(constitution.violations(answer)),
            judge=judge.name,
            author=author,
        )
        for (instruction, answer, temperature, finished), verdict, score in zip(answers, verdicts, scores, strict=True)
    ]
    return candidates, Counter(outcome.cause for outcome in outcomes)


def pair(candidates: Sequence[Candidate], *, min_score_gap: float, require_compiling: bool) -> Pair | None:
    """The best and the worst answer to one prompt by (tier, score); None when they do not really differ, or when the
    best one is empty: a docstring alone compiles, and to say nothing is nothing to learn.

    `require_compiling`: None as well when the best one does not even compile.
    """
    scored = [(each.tier, each.score, each.answer, each) for each in candidates if each.score is not None]
    if len(scored) < 2:
        return None
    best_tier, best_score, _, best = max(scored, key=lambda each: each[:3])
    worst_tier, worst_score, _, worst = min(scored, key=lambda each: each[:3])
    if not best.answer.strip() or (require_compiling and best_tier < Tier.COMPILES):
        return None
    if best_tier == worst_tier and best_score - worst_score < max(min_score_gap, 1e-9):
        return None
    if best_tier != worst_tier:
        reason = f"verifier: {Tier(best_tier).name.lower()} over {Tier(worst_tier).name.lower()} ({worst.verdict})"
    elif best.violations != worst.violations:
        reason = f"constitution: {worst.violations or 'nothing'} broken"
    else:
        reason = "judge: higher score"
    return Pair(
        prompt=best.prompt,
        chosen=best.answer,
        rejected=worst.answer,
        chosen_score=best_score,
        rejected_score=worst_score,
        judge=best.judge,
        reason=reason,
        chosen_tier=best_tier,
        rejected_tier=worst_tier,
        chosen_author=best.author,
        rejected_author=worst.author,
    )


def pair_up(candidates: Sequence[Candidate], *, min_score_gap: float, require_compiling: bool) -> list[Pair]:
    """At most one pair for each prompt, in the order of the prompts."""
    by_prompt: dict[str, list[Candidate]] = {}
    for each in candidates:
        by_prompt.setdefault(each.prompt, []).append(each)
    pairs = (
        pair(group, min_score_gap=min_score_gap, require_compiling=require_compiling) for group in by_prompt.values()
    )
    return [each for each in pairs if each is not None]


def compared(pairs: Sequence[Pair]) -> list[AnswerPair]:
    """Pairs as judges are shown them."""
    return [
        AnswerPair(
            prompt=each.prompt,
            first=each.chosen,
            second=each.rejected,
            first_tier=each.chosen_tier,
            second_tier=each.rejected_tier,
            first_author=each.chosen_author,
            second_author=each.rejected_author,
        )
        for each in pairs
    ]


def decide(pairs: Sequence[Pair], verdicts: Sequence[Verdict], *, min_score_gap: float, judges: str) -> list[Pair]:
    """The pairs that have a verdict, the better answer first; what programs found to differ is never turned round.

    The scores of a pair that opinions decided are 0.5 and the grade's share of the highest one to either side.
    """
    decided = []
    for each, verdict in zip(pairs, verdicts, strict=True):
        if each.chosen_tier != each.rejected_tier:
            decided += [each] if verdict.grade > 0 else []
            continue
        better, worse = (each.chosen, each.rejected) if verdict.grade > 0 else (each.rejected, each.chosen)
        margin = abs(verdict.grade) / HIGHEST_GRADE
        if margin < max(min_score_gap, 1e-9) or not better.strip():
            continue
        is_turned = better != each.chosen
        decided.append(
            replace(
                each,
                chosen=better,
                rejected=worse,
                chosen_score=0.5 + margin / 2,
                rejected_score=0.5 - margin / 2,
                chosen_author=each.rejected_author if is_turned else each.chosen_author,
                rejected_author=each.chosen_author if is_turned else each.rejected_author,
                judge=judges,
                reason=each.reason
                if each.reason.startswith("constitution")
                else f"judge: grade {abs(verdict.grade):g}",
            )
        )
    return decided


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
        "candidates_finished": sum(each.finished for each in candidates),
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


def run(config: PreferencesConfig, *, sft: Path, instructions: Path, plan: Path, out: Path) -> Manifest:
    """Sample, verify, judge and pair; see the module."""
    events = Events(STAGE)
    budget = Budget.read(plan, STAGE).keep(FINISH_SECONDS)
    inputs = [artifact.read(path) for path in (sft, instructions, plan)]
    codec = TextCodec(sft)
    contract = Contract("preferences", config.contract, events, {"min_score_gap": config.min_score_gap})
    constitution = read_constitution()
    prompts = choose_prompts(config, instructions, codec)
    events.note(f"{len(prompts)} prompts, {sum(bool(each.examples) for each in prompts)} with examples that run")
    candidates: list[Candidate] = []
    proposals: list[Pair] = []
    endings: Counter[str] = Counter()
    chunks = 0
    with closing(open_engine(sft)) as engine:
        judges = open_judges(config, constitution, engine, codec)
        for number, chunk in enumerate(_chunks(prompts, config, budget, events)):
            answers = sample(engine, codec, chunk, config, seed=config.seed + 1000 * number)
            revised = revisions(answers, judges, constitution, config)
            assessed: list[Candidate] = []
            for texts, author in ((answers, LOCAL), (revised, judges.reviser.model)):
                several, ended = assess(texts, judges.likelihood, constitution, config, author)
                assessed += several
                endings.update(ended)
            candidates += assessed
            # Judges see every two answers that may differ; their verdicts, not the likelihood, say whether they do.
            chunk_pairs = pair_up(assessed, min_score_gap=0.0, require_compiling=config.require_compiling)
            judges.ensemble.judge(compared(chunk_pairs))
            proposals += chunk_pairs
            chunks = number + 1
    verdicts, report = judges.ensemble.conclude()
    for line in report.lines:
        events.note(line)
    pairs = decide(proposals, verdicts, min_score_gap=config.min_score_gap, judges=", ".join(report.judges_kept))
    events.note(f"{len(pairs)} pairs from {len(prompts)} prompts; the others' answers do not differ enough")
    figures = statistics_of(candidates, pairs)
    events.metrics({name: value for name, value in figures.items() if isinstance(value, int | float)})
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        tables = {"candidates.parquet": _table(Candidate, candidates), "preferences.parquet": _table(Pair, pairs)}
        for name, table in tables.items():
            table.write_parquet(draft.path / name, compression="zstd")
            draft.rows[name] = table.height
        verdict = contract.require(preference_statistics(tables["preferences.parquet"]), where=out)
        contract.write_report(verdict, draft.path)
        report.write(draft.path, tokens=judges.tokens)
        draft.statistics = {**figures, "judges": list(report.judges_kept), "decided_by": report.decided_by}
        draft.statistics["constitution_digest"] = constitution.digest
        draft.statistics["decided"] = {"max_chunks": chunks or None}
        draft.statistics["programs_by_ending"] = dict(sorted(endings.items()))
        draft.run = {"isolation": walls(), "judges": judges.usage, **budget.record()}
    assert draft.manifest is not None
    return draft.manifest


TYPES = {str: pl.String, float: pl.Float64, float | None: pl.Float64, bool: pl.Boolean, int: pl.Int32}


def _table(kind: type[Candidate] | type[Pair], rows: Sequence[Candidate] | Sequence[Pair]) -> pl.DataFrame:
    """Records as a table, with its columns even when there are none."""
    schema = {name: TYPES[annotation] for name, annotation in kind.__annotations__.items()}
    return pl.DataFrame([asdict(each) for each in rows], schema=schema)


if __name__ == "__main__":
    main(STAGE, PreferencesConfig, run)
