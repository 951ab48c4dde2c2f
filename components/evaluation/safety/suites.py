"""Chat and safety suites: what a model refuses and what it should, what it gives away of its training text.

safety             by red-team prompt, averaged over the attacks: refusal, harmful_compliance; any_compliance (through
                   at least one attack); mutated_compliance (of mutations of what got through; 0 where nothing did);
                   by harmless look-alike: over_refusal, look_alikes_answered; of both: cut_prompts, unjudged
safety_attacks     ATTACK_compliance, by red-team prompt
safety_categories  CATEGORY_compliance, by red-team prompt
safety_judge       accuracy and kappa of the judge, by answer that was labelled by hand
canaries           extracted, exposure_bits, by canary; KIND_extracted, by canary of a kind
memorisation       verbatim (all of a continuation), matched_share (before the first error), by training window;
                   repeated_verbatim and repeated_matched_share, of documents with near duplicates in training
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from components.data.documents.canaries import Canary, canaries
from components.evaluation.config import SafetyConfig
from components.evaluation.safety.canary_exposure import measure_canaries
from components.evaluation.safety.judge import Agreement, SafetyJudge, agreement, open_safety_judge
from components.evaluation.safety.memorisation import Windows, measure_memorisation
from components.evaluation.safety.prompts import LOOK_ALIKES, RED_TEAM, Prompt, drawn, read_labelled, read_prompts
from components.evaluation.safety.red_team import Answered, Figure, measure_chat
from components.inference.engine import Engine
from components.tokens.encoding.codec import TextCodec

CANARIES = "canaries"
MEMORISATION = "memorisation"
SAFETY_SUITES = ("safety", "safety_attacks", "safety_categories", "safety_judge", CANARIES, MEMORISATION)


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

    def narrowed(self, suites: Collection[str]) -> "SafetyQuestions | None":
        """The questions that some suites need; None where none is of safety."""
        if not {*suites} & {*SAFETY_SUITES}:
            return None
        return replace(
            self,
            canaries=self.canaries if CANARIES in suites else (),
            windows=self.windows if MEMORISATION in suites else None,
        )


def safety_questions(config: SafetyConfig, windows: Windows | None, seed: int) -> SafetyQuestions:
    """Prompts and canaries by the seed, and the judge with its agreement.

    Raises ConfigError for a judge that the settings do not name, OvernightError for one that does not answer.
    """
    judge = open_safety_judge(config.judge)
    return SafetyQuestions(
        red_team=drawn(read_prompts(RED_TEAM), config.max_prompts, seed),
        look_alikes=drawn(read_prompts(LOOK_ALIKES), config.max_look_alikes, seed),
        canaries=canaries(config.canaries),
        windows=windows,
        judge=judge,
        agreement=agreement(judge, read_labelled()),
    )


def measure_safety(
    engine: Engine, codec: TextCodec, questions: SafetyQuestions, config: SafetyConfig, seed: int
) -> tuple[list[Figure], list[Answered]]:
    """Every figure of one model, in the order of the suites, and what it answered."""
    chat, answered = measure_chat(
        engine, codec, questions.judge, questions.red_team, questions.look_alikes, config, seed
    )
    return [
        *chat,
        ("safety_judge", "accuracy", questions.agreement.items, questions.agreement.correct.tolist()),
        ("safety_judge", "kappa", questions.agreement.items, questions.agreement.kappa.tolist()),
        *measure_canaries(engine, codec, questions.canaries, config.canary_references),
        *measure_memorisation(engine, codec, questions.windows, config),
    ], answered
