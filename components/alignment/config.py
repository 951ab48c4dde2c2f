"""Parameters of the stages that teach the base model to answer and to prefer. Light to import."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from components.alignment.curriculum.levels import Level
from components.core.addresses import without_password
from components.core.config import StepConfig
from components.data.config import DecontaminateConfig
from components.data.documents.licences import OWN, PERMISSIVE, refused
from components.inference.bounds import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    NewTokens,
    NumSamples,
    Seed,
    TopP,
)
from components.training.parameters.rates import RatesConfig

Precision = Literal["float32", "bfloat16"]
PRECISION = (
    "arithmetic of the layers; weights and optimizer stay in float32. On two cores with AVX512-BF16 and 1.3M parameters"
    " float32 took 16 s of CPU where bfloat16 took 26: the casts cost more than they save"
)
MAX_STEPS = "steps in fixed mode; in deadline mode the plan's seconds decide"
DECISIONS = (
    "(step, last step) of each decision that a clock took, for fixed mode; `overnight cycle --replay` fills it in"
)
TUNING_RATES = RatesConfig(
    matrix=0.005, embedding=0.01, output=1e-3, norm=3e-3, momentum_warmup_steps=0, betas=(0.9, 0.95), epsilon=1e-8
)
Decisions = tuple[tuple[int, int], ...]
MODEL_SUFFIXES = (".gguf", ".jinja", ".json", ".safetensors")


Share = Annotated[float, Field(ge=0, le=1)]
JudgeName = Literal["verifier", "likelihood", "generation", "endpoint"]
MOSTLY = "share of pairs that must pass a rule, by rule; all where it is not named"


class ConversationsContract(StepConfig):
    """The bounds of the suite conversations.json."""

    mostly: dict[str, Share] = Field(default_factory=lambda: {"answer_in_prompt": 0.99}, description=MOSTLY)


class CurriculumConfig(StepConfig):
    """Small functions with hidden tests, made by levels."""

    levels: tuple[Level, ...] = Field(
        ("operator", "builtin", "composition"),
        min_length=1,
        description="what is asked, from easy to hard: return, operator, builtin, composition, branch, loop",
    )
    tuning: int = Field(3000, ge=0, description="tasks to learn from at most")
    heldout: int = Field(200, ge=0, description="tasks of wordings, and of compositions, that are never learned")
    pairs: int = Field(320, ge=0, description="tasks whose answers are sampled for preferences")


class CorpusConfig(StepConfig):
    """Functions of the training split."""

    functions: int = Field(1200, ge=0, description="functions to learn from at most")
    heldout: int = Field(48, ge=0, description="functions that are never learned, for the loss before and after")
    pairs: int = Field(80, ge=0, description="functions whose answers are sampled for preferences")
    max_characters: int = Field(480, ge=40, description="functions that are longer, docstring included, are left out")
    derived: int = Field(
        200,
        ge=0,
        description="of the functions learned, so many with their docstring, their tests, a mistake asked for",
    )
    edits: int = Field(
        400, ge=0, description="edits to learn from at most, of Git sources with history_commits (ingest.sources)"
    )


class InstructionFile(StepConfig):
    """A file of JSON lines: messages, prompt and completion, Alpaca's or ShareGPT's columns."""

    path: str = Field(min_length=1, description="from the repository's root; gzipped where it ends in .gz")
    name: str | None = Field(None, description="by which it is weighed and counted; the file's own when null")
    licence: str | None = Field(None, description="SPDX identifier, for the model card")


class TeacherConfig(StepConfig):
    """A model whose answers are learned: one that lies here, or one behind an OpenAI-compatible API."""

    directory: str | None = Field(
        None, min_length=1, description="Hugging Face directory, GGUF file or package:DISTRIBUTION/FILE.gguf"
    )
    url: str | None = Field(
        None,
        min_length=1,
        description="address of the API, as http://127.0.0.1:8000/v1; OVERNIGHT_TEACHER_KEY: its key",
    )
    model: str | None = Field(None, min_length=1, description="name of the model behind the url")
    licence: str = Field(min_length=1, description="SPDX identifier under which its answers may be learned")
    licences: tuple[str, ...] = Field((*PERMISSIVE, OWN), min_length=1, description="licences that may be learned from")
    number: int = Field(200, ge=1, description="prompts that it is asked at most")
    prompts: str | None = Field(
        None,
        min_length=1,
        description="file of JSON lines with a prompt each; functions of the corpus that are not learned when null",
    )
    temperature: float = Field(0.0, ge=0, le=HIGHEST_TEMPERATURE, description="of the sampling; 0: the most probable")
    max_new_tokens: NewTokens = Field(256, description="tokens of an answer; one that reaches them is cut, and dropped")

    @property
    def named_files(self) -> tuple[str, ...]:
        """The prompts, and what the model in `directory` is made of."""
        here = Path(self.directory or "")
        files = [here] if here.is_file() else here.glob("*") if self.directory else []
        model = sorted(str(each) for each in files if each.suffix in MODEL_SUFFIXES)
        return (*([] if self.prompts is None else [self.prompts]), *model)

    @field_validator("url")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        return None if url is None else without_password(url, "set OVERNIGHT_TEACHER_KEY instead")

    @model_validator(mode="after")
    def _check(self) -> "TeacherConfig":
        if (self.directory is None) == (self.url is None):
            raise ValueError("needed either a directory or a url")
        if (self.url is None) != (self.model is None):
            raise ValueError("a url needs the name of a model, and a directory has none")
        if refused(self.licence, self.licences):
            raise ValueError(
                f"the licence {self.licence} is not let in by instructions.teacher.licences; add it there if its terms "
                "let a model learn from the answers, or take another teacher"
            )
        return self


class InstructionsConfig(StepConfig):
    """Where instructions come from."""

    curriculum: CurriculumConfig = Field(
        default_factory=CurriculumConfig, description="made here, verified by programs"
    )
    corpus: CorpusConfig = Field(default_factory=CorpusConfig, description="from the corpus's functions")
    files: tuple[InstructionFile, ...] = Field((), description="of the user's own")
    teacher: TeacherConfig | None = Field(None, description="who answers further prompts; the source `teacher`")
    weights: dict[str, float] = Field(
        default_factory=lambda: {"curriculum": 9.0, "corpus": 1.0},
        description="how often each source is drawn in fine-tuning; 1 where it is not named",
    )
    decontaminate: DecontaminateConfig = Field(
        default_factory=DecontaminateConfig, description="what the models are measured on leaves"
    )
    timeout_seconds: float = Field(2.0, gt=0, description="limit of one program's run")
    memory_bytes: int = Field(268_435_456, ge=33_554_432, description="address space of one program's run")
    seed: int = Field(0, ge=0, description="of the curriculum, and of mistakes to mend")

    @property
    def named_files(self) -> tuple[str, ...]:
        """See StepConfig."""
        teacher = () if self.teacher is None else self.teacher.named_files
        return (*(each.path for each in self.files), *self.decontaminate.suites, *teacher)

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(each <= 0 for each in weights.values()):
            raise ValueError("weights are above 0; to leave a source out ask for none of it")
        return weights


class PreferencesContract(StepConfig):
    """The bounds of the suite preferences.json."""

    min_pairs: int = Field(0, ge=0, description="fewest pairs; align passes the model on when they are few")
    max_answer_characters: int = Field(10_000, ge=1, description="longest answer of a pair")
    min_verifier_share: float = Field(0.0, ge=0, le=1, description="smallest share of pairs that the verifier decided")
    mostly: dict[str, Share] = Field(default_factory=dict, description=MOSTLY)


class ReplayConfig(StepConfig):
    """Pretraining windows beside the instructions, so that the base's abilities stay."""

    share: float = Field(0.4, ge=0, lt=1, description="of the rows of a batch; 0: none")
    anchor: float = Field(
        2.0,
        ge=0,
        description="weight of a nat by which the model differs there from what the base says; 0: the windows' tokens "
        "are learned instead",
    )
    infill_rate: float = Field(0.5, ge=0, le=1, description="chance that a piece of a window is infilled")


class GuardConfig(StepConfig):
    """What a stage may cost the model that it begins with, on held-out windows."""

    windows: int = Field(64, ge=1, description="held-out windows that both models are measured on at most")
    max_text_loss: float = Field(0.03, ge=0, description="growth of bits per byte, as a share")
    max_infilling_loss: float = Field(0.04, ge=0, description="growth of nats a token of infilled middles, as a share")


class ClassifyConfig(StepConfig):
    """An encoder learns to label texts."""

    files: tuple[str, ...] = Field(
        min_length=1, description="JSON lines of text, answer (may be absent) and label, from the repository's root"
    )
    heldout_fraction: float = Field(0.2, gt=0, lt=1, description="share of the texts that only measure")
    suites: tuple[str, ...] = Field(
        tuple(f"components/evaluation/safety/suites/{name}.jsonl" for name in ("red_team", "look_alikes", "labelled")),
        description="what these ask or label is left out",
    )


Tune = Literal["full", "last_layers", "head", "head_reset", "lora", "dora", "qlora"]


class SftConfig(StepConfig):
    """How the base model learns to answer."""

    tune: Tune = Field("full", description="which weights move: all, the last blocks, the output embedding, adapters")
    layers: int = Field(2, ge=1, description="blocks of last_layers")
    rank: int = Field(16, ge=1, description="of adapters")
    adapter_alpha: float = Field(32.0, gt=0, description="of adapters: what they add counts alpha / rank")

    classify: ClassifyConfig | None = Field(
        None, description="of an encoder: what it learns to tell apart, in the place of instructions"
    )
    row_tokens: int = Field(
        256, ge=16, description="positions of a row; conversations that are longer are left out, not cut"
    )
    batch_rows: int = Field(5, ge=1, description="rows in one step: packed conversations, and replay")
    micro_batch_rows: int = Field(5, ge=1, description="rows of one forward and backward pass")
    num_workers: int = Field(
        1, ge=1, description="workers that share every batch: one in the stage's own process, more on Ray Train"
    )
    replay: ReplayConfig = Field(default_factory=ReplayConfig, description="what else is read")
    max_steps: int = Field(120, ge=1, description=MAX_STEPS)
    decisions: Decisions = Field((), description=DECISIONS)
    max_epochs: float = Field(4.0, gt=0, description="passes over the instructions at most, in both modes")
    optimizer: Literal["muon", "adamw"] = Field("adamw", description="of hidden matrices")
    adamw_matrix: float = Field(4e-3, gt=0, description="peak rate of hidden matrices under adamw")
    rates: RatesConfig = Field(default_factory=lambda: TUNING_RATES, description="peak rates of the rest")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of the steps, or of the time, that warms up")
    precision: Precision = Field("float32", description=PRECISION)
    report_every_steps: int = Field(10, ge=1, description="rows of history.csv, metrics and progress")
    seed: int = Field(0, ge=0, description="order of the instructions")
    max_too_long: float = Field(
        0.05, ge=0, le=1, description="share of the instructions that may be too long for a row"
    )
    compile_from_seconds: float = Field(180.0, ge=0, description="compile when at least this much is left for training")
    guard: GuardConfig = Field(default_factory=GuardConfig, description="what may be lost; beyond it the base is kept")
    contract: ConversationsContract = Field(
        default_factory=ConversationsContract, description="what the pairs must satisfy before they are learned"
    )

    @field_validator("num_workers")
    @classmethod
    def _check_workers(cls, num_workers: int, info: ValidationInfo) -> int:
        rows = info.data.get("batch_rows", num_workers)
        if rows % num_workers:
            raise ValueError(f"sft.batch_rows {rows} cannot be shared by so many workers evenly; needed a multiple")
        if num_workers > 1 and info.data.get("classify"):
            raise ValueError("a classifier is trained by one worker; set sft.num_workers to 1")
        return num_workers

    @property
    def named_files(self) -> tuple[str, ...]:
        """See StepConfig."""
        return (*self.classify.files, *self.classify.suites) if self.classify else ()


class PreferencesConfig(StepConfig):
    """How candidates are sampled, verified, judged and paired."""

    max_prompts: int = Field(320, ge=1, description="prompts at most; those with runnable examples come first")
    num_samples: NumSamples = Field(2, description="candidates per prompt at each temperature")
    temperatures: tuple[float, ...] = Field((0.5, 1.0), min_length=1, description="sampling temperatures")
    checkpoints: tuple[Literal["tuned", "base"], ...] = Field(
        ("tuned",), min_length=1, description="models that answer: the fine-tuned one, the one before it, or both"
    )
    top_p: TopP = Field(0.95, description="nucleus that is sampled from")
    max_prompt_tokens: int = Field(160, ge=8, description="prompts that are longer are left out")
    max_too_long: Share = Field(
        0.05, description="share of the prompts that may be left out for their length; more stops the stage"
    )
    max_new_tokens: NewTokens = Field(80, description="tokens of a candidate at most")
    chunk_prompts: int = Field(
        32, ge=1, description="prompts sampled, verified and judged before the clock is read again"
    )
    max_chunks: int | None = Field(
        None, ge=1, description="chunks at most; all when null; `overnight cycle --replay` fills in what the clock left"
    )
    min_score_gap: float = Field(
        0.05, ge=0, description="difference of judge scores from which on two equally verified candidates make a pair"
    )
    judges: tuple[JudgeName, ...] | None = Field(
        None,
        min_length=1,
        description="who decides: programs (verifier), the model by likelihood or by generation, a model at "
        "OVERNIGHT_JUDGE_URL (endpoint); null: the verifier, with the endpoint where there is one and else likelihood",
    )
    min_agreement: float = Field(
        0.2, ge=-1, le=1, description="Cohen's kappa with the verifier below which a judge is left out"
    )
    revise: int = Field(
        0,
        ge=0,
        le=8,
        description="rounds of critique and revision of each prompt's first answer, by the endpoint or else the model",
    )
    max_pairs_per_prompt: int = Field(1, ge=1, description="pairs of one prompt at most; no answer is in two of them")
    require_compiling: bool = Field(
        True, description="an answer that does not compile is never the better one of a pair"
    )
    timeout_seconds: float = Field(2.0, gt=0, description="limit of one candidate's run")
    memory_bytes: int = Field(268_435_456, ge=33_554_432, description="address space of one candidate's run")
    seed: Seed = Field(0, description="seed of the sampling")
    contract: PreferencesContract = Field(
        default_factory=PreferencesContract, description="what the pairs of answers must satisfy"
    )

    @field_validator("judges")
    @classmethod
    def _check_judges(cls, judges: tuple[JudgeName, ...] | None) -> tuple[JudgeName, ...] | None:
        if judges is not None and len(set(judges)) < len(judges):
            raise ValueError("judges are different ones")
        return judges

    @field_validator("temperatures")
    @classmethod
    def _check_temperatures(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        samples = [each for each in temperatures if each != 0]
        if any(not LOWEST_TEMPERATURE <= each <= HIGHEST_TEMPERATURE for each in samples):
            raise ValueError(f"temperatures are 0 or from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}")
        if len(set(temperatures)) < len(temperatures):
            raise ValueError("temperatures are different numbers")
        return temperatures

    @field_validator("checkpoints")
    @classmethod
    def _check_checkpoints(cls, checkpoints: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(checkpoints)) < len(checkpoints):
            raise ValueError("checkpoints are different models")
        return checkpoints


class RewardModelConfig(StepConfig):
    """How a model learns to score answers, from the pairs."""

    share: float = Field(0.25, gt=0, lt=1, description="of the seconds of align that it gets")
    epochs: float = Field(3.0, gt=0, description="passes over the pairs at most")
    max_steps: int = Field(60, ge=1, description="steps in fixed mode")
    row_tokens: int = Field(384, ge=32, description="positions of a row; pairs whose answers are longer are left out")
    batch_rows: int = Field(4, ge=1, description="rows in one step")
    adamw_matrix: float = Field(5e-4, gt=0, description="peak rate of hidden matrices, and of the head")
    rates: RatesConfig = Field(
        default_factory=lambda: TUNING_RATES.model_copy(update={"embedding": 5e-4, "output": 5e-4, "norm": 5e-4}),
        description="peak rates of the rest",
    )


class PolicyConfig(StepConfig):
    """How the model learns from rewards for its own answers."""

    advantage: Literal["gae", "group", "leave_one_out", "reinforce"] = Field(
        "group",
        description="what an answer is compared with: a critic (PPO), its group, whitened (GRPO), the others of its "
        "group (RLOO), the batch (REINFORCE)",
    )
    reward: Literal["tests", "model"] = Field(
        "tests", description="what an answer earns: 1 where its hidden tests hold, or the score of a reward model"
    )
    reward_model: RewardModelConfig = Field(default_factory=RewardModelConfig, description="of reward model")
    prompts: int = Field(12, ge=1, description="prompts of one rollout")
    group: int = Field(8, ge=2, description="answers to each")
    updates: int = Field(1, ge=1, description="steps on one rollout")
    temperature: float = Field(1.0, gt=0, description="of sampling; 1 samples from the policy itself")
    max_prompt_tokens: int = Field(96, ge=8, description="prompts that are longer are left out")
    max_new_tokens: NewTokens = Field(64, description="tokens of an answer at most; one that is cut earns nothing")
    row_tokens: int = Field(256, ge=16, description="positions of a row of packed answers")
    clip_low: float = Field(0.2, gt=0, lt=1, description="how far the ratio of probabilities may fall in a step")
    clip_high: float = Field(0.28, gt=0, description="how far it may rise (DAPO, arXiv:2503.14476)")
    kl: float = Field(0.0, ge=0, description="pull towards the fine-tuned model, in nats a token")
    discount: float = Field(1.0, gt=0, le=1, description="of a reward by token; gae")
    decay: float = Field(0.95, ge=0, le=1, description="gae's lambda")
    adamw_matrix: float = Field(5e-4, gt=0, description="peak rate of hidden matrices")
    rates: RatesConfig = Field(
        default_factory=lambda: TUNING_RATES.model_copy(update={"embedding": 5e-4, "output": 5e-4, "norm": 5e-4}),
        description="peak rates of the rest",
    )
    max_gap: float = Field(
        0.01, gt=0, description="nats by which engine and trainer may differ in a token before the run ends"
    )
    max_deviations: float = Field(
        6.0,
        gt=0,
        description="standard deviations by which sampled tokens may be more or less probable than drawn ones",
    )
    max_dead: int = Field(8, ge=0, description="rollouts in a row without two answers that earn different rewards")
    timeout_seconds: float = Field(2.0, gt=0, description="limit of one answer's run")
    memory_bytes: int = Field(268_435_456, ge=33_554_432, description="address space of one answer's run")


class RoundDecisions(StepConfig):
    """What a clock decided in one round; `overnight cycle --replay` fills it in."""

    max_steps: int = Field(ge=1, description="steps at most")
    decisions: Decisions = Field((), description=DECISIONS)


class RejectionConfig(StepConfig):
    """How the best of several answers is learned, round by round."""

    rounds: int = Field(2, ge=1, description="times that the model answers, and learns the best answers so far")
    prompts: int = Field(240, ge=1, description="prompts of one round at most")
    samples: int = Field(8, ge=1, description="answers to each")
    temperature: float = Field(1.0, gt=0, le=HIGHEST_TEMPERATURE, description="of sampling")
    min_answers: int = Field(16, ge=1, description="prompts with an answer that earned something before any is learned")
    epochs: float = Field(2.0, gt=0, description="passes over the best answers in one round at most")
    batch_rows: int = Field(5, ge=1, description="rows in one step: best answers, and replay")
    replay: ReplayConfig = Field(default_factory=ReplayConfig, description="pretraining windows beside them")
    adamw_matrix: float = Field(1e-3, gt=0, description="peak rate of hidden matrices")
    rates: RatesConfig = Field(
        default_factory=lambda: TUNING_RATES.model_copy(update={"embedding": 1e-3, "output": 5e-4, "norm": 1e-3}),
        description="peak rates of the rest",
    )
    decided: tuple[RoundDecisions, ...] = Field((), description="of each round, for fixed mode")


PairsLoss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
DPO_LOSS: dict[PairsLoss, float] = {"sigmoid": 1.0}


class AlignConfig(StepConfig):
    """How the model learns what is better: from pairs (dpo) or from rewards for its own answers (policy)."""

    method: Literal["dpo", "rejection_sampling", "policy"] = Field(
        "dpo",
        description="pairs of answers; the best of several answers by hidden tests; answers that hidden tests reward "
        "as they are sampled",
    )
    policy: PolicyConfig = Field(default_factory=PolicyConfig, description="of policy; prompts of rejection_sampling")
    rejection: RejectionConfig = Field(default_factory=RejectionConfig, description="of rejection_sampling")
    beta: float = Field(0.1, gt=0, description="strength of the pull back to the model before alignment")
    losses: dict[PairsLoss, float] = Field(
        default_factory=lambda: dict(DPO_LOSS),
        min_length=1,
        description="of dpo, by TRL's names, with their weights: sigmoid (DPO), ipo, hinge, sft, robust and others",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of pairs that are the wrong way round; for robust, exo_pair and sigmoid"
    )
    min_pairs: int = Field(16, ge=2, description="with fewer pairs to train on the model is passed on as it is")
    heldout_fraction: float = Field(0.2, gt=0, lt=1, description="share of the pairs that only measure")
    max_tokens: int = Field(256, ge=16, description="pairs with a longer answer are left out, not cut")
    max_too_long: Share = Field(
        0.05, description="share of the pairs that may be left out for their length; more stops the stage"
    )
    batch_size: int = Field(8, ge=1, description="pairs in one step")
    max_steps: int = Field(60, ge=1, description=MAX_STEPS)
    decisions: Decisions = Field((), description=DECISIONS)
    max_epochs: float = Field(4.0, gt=0, description="passes over the pairs at most, in both modes")
    learning_rate: float = Field(5e-5, gt=0, description="peak; falls linearly to zero after the warmup")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of the steps, or of the time, that warms up")
    precision: Precision = Field("float32", description=PRECISION)
    guard: GuardConfig = Field(
        default_factory=GuardConfig, description="what may be lost; beyond it nothing is aligned"
    )
    seed: int = Field(0, ge=0, description="order of the pairs, and of the prompts")

    @model_validator(mode="after")
    def _check_losses(self) -> "AlignConfig":
        if any(each <= 0 for each in self.losses.values()):
            raise ValueError("losses have weights above 0; to leave one out do not name it")
        if "exo_pair" in self.losses and not self.label_smoothing:
            raise ValueError("the loss exo_pair needs label_smoothing above 0, such as 0.001")
        return self
