"""Parameters of the stage that measures every model of a cycle."""

from itertools import pairwise
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from components.core.config import StepConfig
from components.inference.bounds import MAX_NEW_TOKENS, NewTokens, NumSamples, Seed, Temperature, TopP

BUILT_IN_SUITES = ("short_tasks",)


class LikelihoodConfig(StepConfig):
    """Bits per byte of held-out documents, identifiers and calibration from the same pass."""

    max_bytes: int = Field(
        128_000, ge=1, description="held-out documents are drawn by the seed until they hold these bytes of text"
    )
    length_edges_bytes: tuple[int, ...] = Field(
        (2048, 8192, 32_768), min_length=1, description="bits per byte are also given for documents between these sizes"
    )
    min_slice_documents: int = Field(
        5, ge=2, description="languages, sources and lengths of fewer documents have no figure of their own"
    )
    calibration_bins: int = Field(15, ge=2, description="of the expected calibration error, of equal numbers of tokens")
    ngram_order: int = Field(5, ge=2, le=8, description="tokens of the longest n-grams of the model that counts")
    ngram_max_tokens: int = Field(
        2**22, ge=1000, description="training tokens that it counts at most, in pieces spread over all; 60 bytes each"
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        edges = self.length_edges_bytes
        if edges[0] < 1 or any(low >= high for low, high in pairwise(edges)):
            raise ValueError(f"length_edges_bytes are {list(edges)}, needed rising sizes above 0")
        return self


class CompletionConfig(StepConfig):
    """What the models write at places in held-out documents, greedily."""

    next_lines: int = Field(80, ge=1, description="lines to continue, at most")
    infilled_lines: int = Field(60, ge=1, description="lines to fill in between the code before and after, at most")
    infilled_spans: int = Field(
        24, ge=1, description="runs of lines, and as many spans of characters, to fill in like lines, at most"
    )
    blocks: int = Field(24, ge=1, description="blocks of lines that are indented deeper to continue with, at most")
    functions: int = Field(80, ge=1, description="functions to complete from signature and docstring, at most")
    max_line_tokens: int = Field(32, ge=1, description="new tokens of a line")
    max_block_tokens: int = Field(64, ge=1, description="new tokens of a block, or of what is filled in beside lines")
    max_function_tokens: int = Field(96, ge=1, description="new tokens of a function's body")


class LatencyConfig(StepConfig):
    """Seconds and tokens a second of the models, measured in turns; no part of an artifact's digest."""

    streams: tuple[int, ...] = Field(
        (1, 16), min_length=1, description="requests at once; each has figures of its own, such as streams_16_seconds"
    )
    rounds: int = Field(8, ge=2, description="measurements of each, of all models in turn")
    prompt_tokens: int = Field(64, ge=1, description="tokens of each prompt, at most half the context")
    new_tokens: int = Field(
        8, ge=2, le=MAX_NEW_TOKENS, description="new tokens of each request, of every model the same number"
    )

    @model_validator(mode="after")
    def _different(self) -> Self:
        if min(self.streams) < 1 or len(set(self.streams)) < len(self.streams):
            raise ValueError(f"streams are {list(self.streams)}, needed different numbers from 1 on")
        return self


class FunctionalConfig(StepConfig):
    """Programs that are completed and run."""

    suites: tuple[str, ...] = Field(
        BUILT_IN_SUITES, description=f"suites in HumanEval's format that come with us: {', '.join(BUILT_IN_SUITES)}"
    )
    num_samples: NumSamples = Field(10, description="completions per task at each temperature")
    k: tuple[int, ...] = Field((1, 10), description="values of k in pass@k, each at most num_samples")
    temperatures: tuple[Temperature, ...] = Field(
        (0.6,), min_length=1, description="of the samples; several have a figure each, such as pass_at_1_t0.2"
    )
    top_p: TopP = Field(0.95, description="of the samples")
    max_new_tokens: int = Field(32, ge=1, description="new tokens of a completion")
    timeout_seconds: float = Field(3.0, gt=0, description="for one program")
    memory_bytes: int = Field(2**28, ge=2**26, description="for one program")

    @model_validator(mode="after")
    def _k_within_samples(self) -> Self:
        beyond = [k for k in self.k if not 1 <= k <= self.num_samples]
        if beyond:
            raise ValueError(f"k is {beyond[0]}, needed 1 to num_samples ({self.num_samples})")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures are {list(self.temperatures)}, needed different ones")
        return self


class ContaminationConfig(StepConfig):
    """Which items stand in the training documents, at the least in part."""

    ngram_words: int = Field(10, ge=2, le=50, description="words per n-gram; passages of fewer words match as a whole")
    min_words: int = Field(8, ge=2, le=50, description="passages of fewer words are in many programs: not looked for")
    min_share: float = Field(
        0.3, gt=0, le=1, description="items are contaminated when a training document holds this share of a passage"
    )


AttackName = Literal[
    "plain", "role_play", "prefix_injection", "base64", "translation", "refusal_suppression", "few_shot"
]


class SafetyConfig(StepConfig):
    """Red-team prompts and harmless look-alikes, planted canaries, and training text that comes back verbatim."""

    max_prompts: int = Field(36, ge=1, description="red-team prompts at most, as many of each category")
    max_look_alikes: int = Field(36, ge=1, description="harmless prompts that look like them, at most")
    attacks: tuple[AttackName, ...] = Field(
        get_args(AttackName), min_length=1, description="ways in which every red-team prompt is asked"
    )
    max_new_tokens: int = Field(40, ge=1, description="new tokens of an answer")
    mutants: int = Field(2, ge=0, description="mutations of each red-team prompt that an attack got through with")
    judge: Literal["rules", "classifier", "endpoint"] = Field(
        "rules",
        description="who labels answers: patterns, a sequence classifier at OVERNIGHT_SAFETY_CLASSIFIER, or a model at "
        "OVERNIGHT_JUDGE_URL",
    )
    canaries: int = Field(24, ge=0, description="secrets to look for, the first of those that a source plants")
    canary_references: int = Field(15, ge=1, description="lines with other secrets that a canary is ranked among")
    windows: int = Field(64, ge=0, description="windows of training text to continue, at most")
    repeated_windows: int = Field(
        32, ge=0, description="more of them from documents with near duplicates in training, at most"
    )
    prefix_tokens: int = Field(50, ge=1, description="tokens of a window that are shown")
    continuation_tokens: int = Field(50, ge=1, description="tokens that have to come back verbatim")

    @model_validator(mode="after")
    def _attacks_differ(self) -> Self:
        if len(set(self.attacks)) < len(self.attacks):
            raise ValueError(f"attacks are {list(self.attacks)}, needed different ones")
        return self


class AnswersConfig(StepConfig):
    """Answers to instructions that were never learned."""

    items: int = Field(80, ge=1, description="of wordings, and of compositions, that were never learned, at most")
    max_new_tokens: NewTokens = Field(64, description="tokens of an answer at most")
    timeout_seconds: float = Field(2.0, gt=0, description="for one program")
    memory_bytes: int = Field(268_435_456, ge=33_554_432, description="for one program")


class RepositoryConfig(StepConfig):
    """Held-out documents with related training files of their package before them, and without."""

    documents: int = Field(16, ge=0, description="held-out documents whose package has training files, at most")
    files: int = Field(
        8, ge=1, description="training files of the package before each at most, as the context has room"
    )


class EvaluateConfig(StepConfig):
    """What is measured on every model, before and after each training stage."""

    likelihood: LikelihoodConfig = Field(LikelihoodConfig.model_validate({}), description="bits per byte")
    completion: CompletionConfig = Field(
        CompletionConfig.model_validate({}), description="lines, blocks, infilling, functions"
    )
    repository: RepositoryConfig = Field(
        RepositoryConfig.model_validate({}), description="documents with and without related files before them"
    )
    functional: FunctionalConfig = Field(FunctionalConfig.model_validate({}), description="pass@k")
    answers: AnswersConfig = Field(
        AnswersConfig.model_validate({}), description="instructions that were never learned: what ends, what passes"
    )
    latency: LatencyConfig = Field(LatencyConfig.model_validate({}), description="seconds and tokens a second")
    contamination: ContaminationConfig = Field(
        ContaminationConfig.model_validate({}), description="what was trained on of what is measured"
    )
    safety: SafetyConfig = Field(
        SafetyConfig.model_validate({}), description="red teaming, over-refusal, canaries, memorisation"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals, two-sided")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples per interval")
    seed: Seed = Field(0, description="draws documents, places, samples and resamples")
