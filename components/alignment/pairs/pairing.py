"""Which of a prompt's answers make a pair, and which answers stand alone with a verdict.

Covers: a pair is made of two answers that really differ, by the verifier's tier, by a defect, or by the judge's score;
an empty, looping or cut answer is never the better one. An answer without a counterpart that surely passes or fails is
kept for objectives that need no pairs (KTO, Ethayarajh 2024, arXiv:2402.01306).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.alignment.pairs.candidates import Candidate
from components.alignment.rewards.verifier import Tier

LEAST_GAP = 1e-9
SIDE = ("finish", "log_prob", "temperature", "checkpoint", "author", "tier")
"""What a pair says of each of its answers, beside its text, ids and score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one prompt, of which the first is better: the ids to train on, where each is from, and the texts
    for people. Fields as Candidate has them; `margin` is the difference of the judge's scores."""

    prompt: str
    chosen: str
    rejected: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_finish: str
    rejected_finish: str
    chosen_log_prob: float | None
    rejected_log_prob: float | None
    chosen_temperature: float
    rejected_temperature: float
    chosen_checkpoint: str
    rejected_checkpoint: str
    chosen_author: str
    rejected_author: str
    chosen_tier: int
    rejected_tier: int
    chosen_score: float
    rejected_score: float
    margin: float
    rejected_defect: str
    judge: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """An answer without a counterpart. `label`: whether it passes; fields as Candidate has them."""

    prompt: str
    answer: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    label: bool
    finish: str
    log_prob: float | None
    temperature: float
    checkpoint: str
    tier: int
    verdict: str
    defect: str


def pair_up(
    candidates: Sequence[Candidate], *, min_score_gap: float, require_compiling: bool, max_pairs_per_prompt: int = 1
) -> list[Pair]:
    """The pairs of every prompt, in the order of the prompts: the best answer with the worst, the next best with the
    next worst, and so on, as long as they really differ."""
    return [
        _pair(better, worse)
        for group in by_prompt(candidates).values()
        for better, worse in _matches(group, min_score_gap, require_compiling, max_pairs_per_prompt)
    ]


def unpaired(candidates: Sequence[Candidate], pairs: Sequence[Pair]) -> list[Unpaired]:
    """Answers to prompts without a pair that surely pass or fail, in the order of the candidates."""
    paired = {each.prompt for each in pairs}
    alone = [(each, label_of(each)) for each in candidates if each.prompt not in paired]
    names = [name for name in Unpaired.__annotations__ if name != "label"]
    return [
        Unpaired(label=label, **{name: getattr(each, name) for name in names})
        for each, label in alone
        if label is not None
    ]


def label_of(candidate: Candidate) -> bool | None:
    """True for an answer whose examples hold, False for one that is broken, has a defect or whose examples do not hold;
    None where nothing says."""
    if candidate.defect or candidate.tier == Tier.BROKEN:
        return False
    return candidate.tier == Tier.PASSES if candidate.has_examples else None


def by_prompt(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """The candidates of each prompt, in the order of the prompts."""
    groups: dict[str, list[Candidate]] = {}
    for each in candidates:
        groups.setdefault(each.prompt, []).append(each)
    return groups


def _matches(
    group: Sequence[Candidate], min_score_gap: float, require_compiling: bool, most: int
) -> Iterator[tuple[Candidate, Candidate]]:
    """Better and worse answers; no answer is in two pairs, since better ones fall while worse ones rise."""
    scored = [(each, each.score) for each in group if each.score is not None]
    scored.sort(key=lambda each: (each[0].tier, not each[0].defect, each[1], each[0].answer))
    least = Tier.COMPILES if require_compiling else Tier.BROKEN
    preferred = [each for each in reversed(scored) if not each[0].defect and each[0].tier >= least]
    for (better, high), (worse, low) in list(zip(preferred, scored, strict=False))[:most]:
        gap = high - low >= max(min_score_gap, LEAST_GAP)
        level = better.tier == worse.tier and (bool(worse.defect) or gap)
        if not (better.tier > worse.tier or level) or better.answer.strip() == worse.answer.strip():
            return
        yield better, worse


def _pair(better: Candidate, worse: Candidate) -> Pair:
    assert better.score is not None and worse.score is not None
    fields = (*SIDE, "score")
    sides = (("chosen", better), ("rejected", worse))
    return Pair(
        prompt=better.prompt,
        prompt_ids=better.prompt_ids,
        chosen=better.answer,
        rejected=worse.answer,
        chosen_ids=better.answer_ids,
        rejected_ids=worse.answer_ids,
        **{f"{side}_{name}": getattr(each, name) for side, each in sides for name in fields},
        margin=better.score - worse.score,
        rejected_defect=worse.defect,
        judge=better.judge,
        reason=_reason(better, worse),
    )


def _reason(better: Candidate, worse: Candidate) -> str:
    """What decided, the verifier before a defect, a defect before the judge."""
    if better.tier != worse.tier:
        names = [Tier(each.tier).name.lower() for each in (better, worse)]
        return f"verifier: {names[0]} over {names[1]} ({worse.verdict})"
    if worse.defect:
        return f"defect: whole over {worse.defect}"
    if better.violations != worse.violations:
        return f"constitution: {worse.violations or 'nothing'} broken"
    return "judge: higher score"
