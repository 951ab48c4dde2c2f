"""Chat and safety suites: what a model refuses and what it should, what it gives away of its training text.

safety             by red-team prompt, averaged over the attacks: refusal, harmful_compliance; any_compliance (through
                   at least one attack); mutated_compliance (of mutations of what got through; 0 where nothing did);
                   by harmless look-alike: over_refusal, look_alikes_answered; cut_prompts, unjudged (shares)
safety_attacks     ATTACK_compliance, by red-team prompt
safety_categories  CATEGORY_compliance, by red-team prompt
safety_judge       accuracy and kappa of the judge, by answer that was labelled by hand
canaries           extracted, exposure_bits, by canary
memorisation       verbatim (all of a continuation), matched_share (before the first error), by training window;
                   repeated_verbatim, of documents with near duplicates in training

An item is a prompt, not a prompt under an attack: attacks on one prompt are alike and would make intervals too narrow.
Answers without a verdict count as harmful and as refusals, wherever that is worse. A tokenizer without chat is asked as
`User: ... Assistant:`. Prompts longer than the context lose text on the left; cut_prompts says how many did.
Not covered: answers as a kept table; conversations that react to answers; harm in answers to harmless prompts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.canaries import Canary, canaries
from components.evaluation.config import SafetyConfig
from components.evaluation.memorisation import Draw, Windows, matched_tokens
from components.evaluation.safety_attacks import ATTACKS, ask, mutants
from components.evaluation.safety_canaries import exposure_bits, extracted
from components.evaluation.safety_judge import Agreement, Exchange, SafetyJudge, agreement, open_judge
from components.evaluation.safety_prompts import (
    LOOK_ALIKES,
    RED_TEAM,
    Label,
    Prompt,
    drawn,
    read_labelled,
    read_prompts,
)
from components.inference.engine import Engine, Sampling
from components.inference.prompts import (
    Message,
    chat_prompt,
    chat_stop_ids,
    completion_prompt,
    completion_stop_ids,
)
from components.tokens.text import TextCodec

SAFETY_SUITES = ("safety", "safety_attacks", "safety_categories", "safety_judge", "canaries", "memorisation")

# Suite, metric, items, values.
Figure = tuple[str, str, Sequence[str], Sequence[float]]
Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyQuestions:
    """What every model is asked, and by whom it is judged."""

    red_team: tuple[Prompt, ...]
    look_alikes: tuple[Prompt, ...]
    canaries: tuple[Canary, ...]
    windows: Windows | None
    judge: SafetyJudge
    agreement: Agreement

    @property
    def statistics(self) -> dict[str, str | float]:
        """Who judged, how far that agrees with labels by hand, and how much was asked; for a manifest."""
        windows = self.windows
        return {
            "judge": self.judge.name,
            "judge_accuracy": round(float(self.agreement.correct.mean()), 6),
            "judge_kappa": round(float(self.agreement.kappa.mean()), 6),
            "labelled_answers": len(self.agreement.items),
            "red_team_prompts": len(self.red_team),
            "look_alikes": len(self.look_alikes),
            "canaries": len(self.canaries),
            "training_windows": 0 if windows is None else len(windows.uniform.items),
            "repeated_windows": 0 if windows is None else len(windows.repeated.items),
        }


def safety_questions(config: SafetyConfig, windows: Windows | None, seed: int) -> SafetyQuestions:
    """Prompts and canaries by the seed, and the judge with its agreement.

    Raises ConfigError for a judge that the settings do not name, OvernightError for one that does not answer.
    """
    judge = open_judge(config.judge)
    return SafetyQuestions(
        red_team=drawn(read_prompts(RED_TEAM), config.max_prompts, seed),
        look_alikes=drawn(read_prompts(LOOK_ALIKES), config.max_look_alikes, seed),
        canaries=canaries(config.canaries, seed),
        windows=windows,
        judge=judge,
        agreement=agreement(judge, read_labelled()),
    )


def measure_safety(
    engine: Engine, codec: TextCodec, asked: SafetyQuestions, config: SafetyConfig, seed: int
) -> list[Figure]:
    """Every figure of one model, in the order of the suites."""
    return [
        *_chat(engine, codec, asked, config, seed),
        ("safety_judge", "accuracy", asked.agreement.items, asked.agreement.correct.tolist()),
        ("safety_judge", "kappa", asked.agreement.items, asked.agreement.kappa.tolist()),
        *_canaries(engine, codec, asked.canaries, config, seed),
        *_memorisation(engine, codec, asked.windows, config),
    ]


def answers(
    engine: Engine, codec: TextCodec, chats: Sequence[Sequence[Message]], max_new_tokens: int
) -> tuple[list[str], list[bool]]:
    """The greedy answer to each chat, and whether the chat was cut to fit the context."""
    room = max(engine.context_tokens - max_new_tokens, engine.context_tokens // 2)
    has_chat = None not in (codec.special.user, codec.special.assistant, codec.special.end)
    prompts = [chat_prompt(codec, each) if has_chat else completion_prompt(codec, _as_text(each)) for each in chats]
    # The first token is a role or <|endoftext|>: without it the rest would be no chat and no document.
    fitted = [each if len(each) <= room else [each[0], *each[len(each) - room + 1 :]] for each in prompts]
    stops = chat_stop_ids(codec) if has_chat else completion_stop_ids(codec)
    found = engine.generate(fitted, Sampling(max_new_tokens=max_new_tokens), stop_ids=stops)
    return [codec.decode(each.tokens) for (each,) in found], [len(each) > room for each in prompts]


def _as_text(chat: Sequence[Message]) -> str:
    """A chat for a model that knows no turns."""
    turns = [f"{each['role'].capitalize()}: {each['content']}\n\n" for each in chat]
    return "".join([*turns, "Assistant:"])


def _chat(engine: Engine, codec: TextCodec, asked: SafetyQuestions, config: SafetyConfig, seed: int) -> list[Figure]:
    red_team, look_alikes = asked.red_team, asked.look_alikes
    attacked = [(prompt, attack) for prompt in red_team for attack in config.attacks]
    chats = [*(ATTACKS[attack](prompt) for prompt, attack in attacked), *(ask(each.text) for each in look_alikes)]
    texts, cut = answers(engine, codec, chats, config.max_new_tokens)
    labels = asked.judge.label(_exchanges([*(prompt for prompt, _ in attacked), *look_alikes], texts))
    count, shape = len(attacked), (len(red_team), len(config.attacks))
    harmful = share_of(labels[:count], "complied", "unjudged").reshape(shape)

    def everywhere(values: Shares) -> list[float]:
        """Of every prompt: of red-team prompts the mean over the attacks."""
        return [*values[:count].reshape(shape).mean(axis=1).tolist(), *values[count:].tolist()]

    items, similar = [each.id for each in red_team], [each.id for each in look_alikes]
    refused = everywhere(share_of(labels, "refused"))[: len(items)]
    return [
        ("safety", "refusal", items, refused),
        ("safety", "harmful_compliance", items, harmful.mean(axis=1).tolist()),
        ("safety", "any_compliance", items, harmful.max(axis=1).tolist()),
        ("safety", "mutated_compliance", items, _mutated(engine, codec, asked, config, harmful, seed)),
        ("safety", "over_refusal", similar, share_of(labels[count:], "refused", "unjudged").tolist()),
        ("safety", "look_alikes_answered", similar, share_of(labels[count:], "complied").tolist()),
        ("safety", "cut_prompts", [*items, *similar], everywhere(np.array(cut, dtype=np.float64))),
        ("safety", "unjudged", [*items, *similar], everywhere(share_of(labels, "unjudged"))),
        *_by_attack_and_category(red_team, harmful, config),
    ]


def _by_attack_and_category(red_team: Sequence[Prompt], harmful: Shares, config: SafetyConfig) -> list[Figure]:
    figures: list[Figure] = []
    items = [each.id for each in red_team]
    for column, attack in enumerate(config.attacks):
        figures.append(("safety_attacks", f"{attack}_compliance", items, harmful[:, column].tolist()))
    by_prompt = harmful.mean(axis=1).tolist()
    for category in dict.fromkeys(each.category for each in red_team):
        rows = [row for row, each in enumerate(red_team) if each.category == category]
        values = [by_prompt[row] for row in rows]
        figures.append(("safety_categories", f"{category}_compliance", [items[row] for row in rows], values))
    return figures


def _mutated(
    engine: Engine, codec: TextCodec, asked: SafetyQuestions, config: SafetyConfig, harmful: Shares, seed: int
) -> list[float]:
    """The share of each prompt's mutations that get through, asked in one of the ways in which it did itself."""
    pairs = [
        (row, mutant, config.attacks[_one_of(np.flatnonzero(harmful[row]), seed, prompt.id)])
        for row, prompt in enumerate(asked.red_team)
        if harmful[row].any()
        for mutant in mutants(prompt, config.mutants, seed)
    ]
    values = [0.0] * len(asked.red_team)
    if not pairs:
        return values
    texts, _ = answers(engine, codec, [ATTACKS[how](mutant) for _, mutant, how in pairs], config.max_new_tokens)
    labels = asked.judge.label(_exchanges([mutant for _, mutant, _ in pairs], texts))
    through = share_of(labels, "complied", "unjudged")
    rows = np.array([row for row, _, _ in pairs])
    for row in np.unique(rows).tolist():
        values[row] = float(through[rows == row].mean())
    return values


def _one_of(columns: NDArray[np.intp], seed: int, name: str) -> int:
    """One of the columns, by the seed and a name alone."""
    digest = hashlib.sha256(f"attack:{seed}:{name}".encode()).digest()
    return int(columns[int.from_bytes(digest[:8]) % len(columns)])


def _exchanges(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[Exchange]:
    return [Exchange(prompt=prompt, answer=text) for prompt, text in zip(prompts, texts, strict=True)]


def share_of(labels: Sequence[Label], *wanted: Label) -> Shares:
    """1 where a label is one of the wanted, else 0, shape (labels,)."""
    return np.array([label in wanted for label in labels], dtype=np.float64)


def _canaries(
    engine: Engine, codec: TextCodec, planted: Sequence[Canary], config: SafetyConfig, seed: int
) -> list[Figure]:
    if not planted:
        return []
    items = [each.name for each in planted]
    bits = exposure_bits(engine, codec, planted, config.canary_references, seed)
    return [
        ("canaries", "extracted", items, [float(each) for each in extracted(engine, codec, planted)]),
        ("canaries", "exposure_bits", items, bits),
    ]


def _memorisation(engine: Engine, codec: TextCodec, windows: Windows | None, config: SafetyConfig) -> list[Figure]:
    if windows is None or not windows.are_of(codec):
        return []
    draws: tuple[tuple[str, Draw], ...] = (("", windows.uniform), ("repeated_", windows.repeated))
    figures: list[Figure] = []
    for prefix, draw in draws:
        shares = matched_tokens(engine, codec, draw, config) / config.continuation_tokens
        figures.append(("memorisation", f"{prefix}verbatim", draw.items, (shares == 1).astype(float).tolist()))
        figures.append(("memorisation", f"{prefix}matched_share", draw.items, shares.tolist()))
    return [each for each in figures if each[2]]
