"""Parameters of planning and pretraining, and the plan that later stages read. Light: no torch.

The defaults are the smoke cycle's: two cores, minutes. Rates, sizes and shares are measured ones; docs/log.md has the
figures of what was tried beside them.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.config import StepConfig
from components.core.errors import ArtifactError, one_line
from components.deadline.config import DeadlineConfig, TimePlan
from components.tokens.foreign.initial import Initial
from components.training.engine.model.shape import RECURRENT, Architecture, Shape, kind_of
from components.training.parameters.accelerators import Accelerator, AcceleratorsConfig
from components.training.parameters.experts import ExpertsConfig
from components.training.parameters.faults import FaultsConfig
from components.training.parameters.fit import EconomicsConfig, FitConfig
from components.training.parameters.mixture import MixtureConfig
from components.training.parameters.objectives import ObjectivesConfig
from components.training.parameters.rates import RatesConfig
from components.training.parameters.size import Size
from components.training.parameters.skip import SkipConfig
from components.training.parameters.spikes import SpikesConfig
from components.training.parameters.update import UpdateConfig

PLAN_FILE = "plan.json"
Precision = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]
Parallel = Literal["data", "sharded"]
RopeScaling = Literal["yarn", "linear"]


# Weights that are trained already move little: Muon at 0.002 changes the elements of a 1024-wide matrix by 6e-5 a step
# (root mean square), as AdamW at 6e-5 does; embeddings and norms take AdamW's usual 1e-4 of continued training.
CONTINUED_RATES = RatesConfig(
    matrix=0.002, embedding=1e-4, output=1e-4, norm=1e-4, momentum_warmup_steps=0, betas=(0.9, 0.95), epsilon=1e-8
)


class FixedRun(StepConfig):
    """A run with every decision taken in advance. `overnight cycle --replay` fills in what a deadline decided."""

    size: Size = Field(default=Size(layers=4, width=128), description="depth and width")
    steps: int = Field(default=1500, ge=1, description="updates")
    decisions: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="(step, last step) of each decision of the decay; empty: pretrain.decay_share of the steps",
    )
    skipped: tuple[int, ...] = Field(
        default=(), description="numbers of batches that no step reads, beside pretrain.skip"
    )
    precision: Precision = Field(default="float32", description="what the model computes in; masters are float32")
    compiled: bool = Field(default=False, description="compile the model")
    accelerators: tuple[Accelerator, ...] = Field(default=(), description="as plan.accelerators.use, by name")
    micro_batch_samples: int | None = Field(
        default=None, ge=1, description="what memory left of plan.micro_batch_samples; null: all of it"
    )
    validate_every_steps: int | None = Field(
        default=None, ge=1, description="steps between validations; null: plan.validations over the whole run"
    )


class PlanConfig(DeadlineConfig):
    """What the deadline is, what may be chosen, and how."""

    probe_seconds: float = Field(15, gt=0, description="limit of the timed steps")
    architecture: Architecture = Field(
        "qwen3",
        description="decoders: llama, qwen3 (with normalised queries and keys), mixtral (experts), bamba (Mamba2 and "
        "attention); encoder: modernbert; encoder-decoder: t5; pretrain.init_from brings its own",
    )
    experts: ExpertsConfig = Field(default_factory=ExpertsConfig, description="of mixtral")
    ladder: tuple[Size, ...] = Field(
        (Size(layers=4, width=128), Size(layers=6, width=192), Size(layers=8, width=256), Size(layers=12, width=512)),
        min_length=1,
        description="candidate sizes, smallest first",
    )
    head_width: int = Field(64, ge=16, description="features of one attention head")
    queries_per_key_value: int = Field(2, ge=1, description="query heads that share a key-value head")
    tied: bool = Field(False, description="one matrix for input and output embedding")
    rope_theta: float = Field(10_000.0, gt=0, description="base of the rotary positions")
    sequence_length: int = Field(256, ge=16, description="tokens of a training window, and the context of the model")
    rope_scaling: RopeScaling = Field(
        "yarn", description="how rotary positions stretch where sequence_length is beyond pretrain.init_from's context"
    )
    batch_samples: int = Field(8, ge=1, description="windows of one update, over all workers")
    micro_batch_samples: int = Field(8, ge=1, description="windows of one forward and backward pass of a worker")
    validations: int = Field(12, ge=1, description="measurements of held-out bits per byte during a run, as foreseen")
    minimum_tokens_per_parameter: float = Field(
        1.5,
        gt=0,
        description="the largest size that sees this many tokens per parameter is chosen; measured in minutes on cores,"
        " where published laws do not hold (20 is Hoffmann's compute-optimal ratio, for runs of 1e18 FLOPs and more)",
    )
    num_workers: int = Field(1, ge=1, description="workers that share every batch")
    parallel: Parallel = Field(
        "data", description="data: every worker holds the whole model; sharded: its rows, where memory is short (FSDP2)"
    )
    activation_checkpointing: bool = Field(
        False, description="compute each block's activations again in the backward pass: less memory, a third more work"
    )
    device: Device = Field("cpu", description="cpu: the workers share the cores; cuda: one GPU for each worker")
    compile_from_seconds: float = Field(120, ge=0, description="compile when at least this much is left for training")
    compiled_speedup: float = Field(1.8, ge=1, description="tokens per second compiled over eager, measured")
    accelerators: AcceleratorsConfig = Field(
        default_factory=AcceleratorsConfig, description="what makes a GPU faster beside compilation"
    )
    fixed: FixedRun = Field(default_factory=FixedRun, description="the run of fixed mode")
    fit: FitConfig = Field(default_factory=FitConfig, description="the small runs that a scaling law is fitted to")
    economics: EconomicsConfig = Field(default_factory=EconomicsConfig, description="cost of training and serving")


class PretrainConfig(StepConfig):
    """How the planned model is trained."""

    init_from: str | None = Field(
        None,
        description="a decoder to go on from, with its own tokenizer: a Hugging Face directory, a GGUF file, or "
        "package:DISTRIBUTION/FILE.gguf, a file of an installed package; null: begin anew",
    )
    init_rates: RatesConfig = Field(
        default_factory=lambda: CONTINUED_RATES, description="learning rates when going on from init_from"
    )
    bigram_steps: int = Field(
        40,
        ge=0,
        description="a new decoder's embeddings begin as a bigram model of the corpus, fitted by so many updates; 0: "
        "at random, as with tied embeddings or more than 8,192 tokens",
    )
    induction_head: bool = Field(
        True,
        description="beside the bigram start: two heads of a new decoder begin as an induction head, which copies from "
        "the context",
    )
    rates: RatesConfig = Field(default_factory=RatesConfig, description="learning rates of a model that begins anew")
    update: UpdateConfig = Field(default_factory=UpdateConfig, description="rule, schedule, z-loss, average of weights")
    warmup_steps: int = Field(20, ge=0)
    decay_share: float = Field(
        0.6, gt=0, le=1, description="share of the run (of its time, under a deadline) that decays"
    )
    final_share: float = Field(0.02, ge=0, lt=1, description="learning rate at the end, as a share of the peak")
    objectives: ObjectivesConfig = Field(default_factory=ObjectivesConfig, description="what is asked, by piece")
    mixture: MixtureConfig = Field(default_factory=MixtureConfig, description="how sources are mixed")
    skip: SkipConfig = Field(default_factory=SkipConfig, description="batches and documents that are passed over")
    spikes: SpikesConfig = Field(default_factory=SpikesConfig, description="what to do when the loss jumps")
    report_every_steps: int = Field(25, ge=1, description="rows of history.csv, metrics and progress")
    validation_bytes: int = Field(10_000, ge=1, description="held-out bytes of those during training: short documents")
    final_validation_bytes: int = Field(600_000, ge=1, description="held-out bytes of the last one; all if fewer")
    checkpoint_seconds: float = Field(20, ge=0, description="between checkpoints")
    faults: FaultsConfig = Field(default_factory=FaultsConfig, description="workers that fail, hang or are too few")
    seed: int = Field(0, ge=0, description="weights, order of the samples, objectives, validation sample")

    def rates_at(self, width: int) -> RatesConfig:
        """Those of this run, for a model of a width: what was found at one width, moved to another (docs/log.md)."""
        if self.init_from is not None:
            return self.init_rates
        share = (self.update.rates_width / width) ** self.update.output_width_exponent
        return self.rates.model_copy(update={"output": self.rates.output * share})


def objection(config: PretrainConfig, architecture: str) -> str | None:
    """Why an architecture cannot be asked what is configured, in one line; None when it can."""
    if architecture in RECURRENT and config.objectives.isolate_documents:
        return (
            f"{architecture} passes a state from token to token, which cannot be kept inside a document; set "
            "pretrain.objectives.isolate_documents to false, or choose an architecture without a state"
        )
    refusal = config.objectives.refusal(kind_of(architecture))
    return refusal and f"{refusal} (the architecture is {architecture})"


class Prediction(BaseModel):
    """A loss that a run is expected to reach, with its interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    value: float
    high: float
    unit: str


class Alternative(BaseModel):
    """A size that was looked at, and what the time would give it. Losses are the laws' own, in nats per token of the
    tokenizers they were fitted with: for comparison between sizes only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int
    width: int
    parameters: int
    tokens_per_second: float
    tokens: int
    tokens_per_parameter: float
    hoffmann_loss: float
    besiroglu_loss: float
    training_seconds: float
    micro_batch_samples: int | None = Field(description="largest that fits the memory; None: not even one window")
    memory_bytes: float = Field(description="of one worker at that micro-batch")
    predicted: Prediction | None = Field(description="by a law fitted on this corpus; None without one")
    train_cost: float = Field(description="of pretraining alone, in the currency of price_per_hour")
    serve_cost: float = Field(description="of plan.economics.inference_tokens, likewise")


class Plan(TimePlan):
    """plan.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Shape
    initial: Initial | None = Field(default=None, description="the checkpoint that is gone on from")
    rope_scaling: RopeScaling | None = Field(default=None, description="None: within the checkpoint's own context")
    sequence_length: int
    batch_samples: int
    micro_batch_samples: int
    num_workers: int
    parallel: Parallel = "data"
    activation_checkpointing: bool = False
    device: Device
    precision: Precision
    compiled: bool
    accelerators: tuple[Accelerator, ...] = ()
    training_seconds: float | None = Field(default=None, description="first step to last; None in fixed mode")
    finish_seconds: float = Field(default=0.0, description="of stage_seconds of pretrain: after the last step")
    steps: int | None = Field(default=None, description="None in deadline mode")
    validate_every_steps: int = Field(description="steps between measurements of held-out bits per byte")
    decisions: tuple[tuple[int, int], ...] = Field(default=(), description="of the decay; empty in deadline mode")
    skipped: tuple[int, ...] = Field(default=(), description="numbers of batches that no step reads; of a replay")
    expected_tokens: int | None = Field(default=None, description="what the probe foresees; None in fixed mode")
    alternatives: tuple[Alternative, ...] = Field(
        default=(), description="sizes looked at, smallest first; empty in fixed mode"
    )
    measured: dict[str, float] = Field(default_factory=dict, description="the probe; empty in fixed mode")
    predicted: Prediction | None = Field(default=None, description="loss of the planned run by the corpus's own law")
    notes: tuple[str, ...] = Field(default=(), description="why things were chosen")


def read_plan(directory: Path) -> Plan:
    """plan.json of an artifact. Raises ArtifactError when it is not a plan of this version."""
    path = directory / PLAN_FILE
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a plan: {one_line(error)}; run plan again") from error
