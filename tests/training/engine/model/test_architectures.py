"""Every architecture: counted without torch, trained, exported as the stage exports, read again, served or refused."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from components.alignment.objectives.tuning import load_model, require_answers
from components.core.errors import ArtifactError, DataError
from components.inference.engine import Sampling
from components.inference.open import engine_for, open_engine
from components.tokens import vocabulary
from components.tokens.config import NUM_BYTE_TOKENS
from components.tokens.encoding.special import special_tokens
from components.tokens.shards.token_store import SPLITS, TokenWriter
from components.training.config import Plan, PretrainConfig
from components.training.engine.model.architectures import build
from components.training.engine.model.forward import balance_loss
from components.training.engine.model.roles import roles_of
from components.training.engine.model.shape import ARCHITECTURES, Architecture, Shape, kind_of, shape_of
from components.training.engine.optimizer import Optimizer
from components.training.engine.trainer import World
from components.training.parameters.objectives import ObjectivesConfig
from components.training.run.worker import train_worker
from components.training.run.worker_input import Work
from tests.margins import Margins
from tests.training.runs import RATES

pytestmark = pytest.mark.numeric

SPANS = 10
VOCABULARY_SIZE = NUM_BYTE_TOKENS + len(special_tokens(SPANS))
STEPS = 12
ASKED = {
    "decoder": {"infill": {"rate": 0.0}},
    "encoder": {"infill": {"rate": 0.0}, "masked": {"rate": 1.0}},
    "encoder-decoder": {"infill": {"rate": 0.0}, "denoise_r": {"rate": 1.0, "noise": 0.3, "span_tokens": 3.0}},
}
# The table of docs/training.md, row by row: kind, engine that serves it (None: refused), whether sft takes it.
TABLE = {
    "llama": ("decoder", "ctranslate2", True),
    "qwen3": ("decoder", "ctranslate2", True),
    "mixtral": ("decoder", "transformers", True),
    "bamba": ("decoder", "transformers", True),
    "modernbert": ("encoder", None, False),
    "t5": ("encoder-decoder", None, True),
}


def shape(architecture: Architecture, **changes: int | bool) -> Shape:
    """A small one."""
    values: dict[str, Any] = {
        "architecture": architecture,
        "vocabulary_size": VOCABULARY_SIZE,
        "context": 32,
        "layers": 2,
        "width": 64,
        "head_width": 32,
        "queries_per_key_value": 2,
        "rope_theta": 10_000.0,
        "tied": architecture == "t5",
        "experts": 4,
        "experts_per_token": 2,
        **changes,
    }
    return shape_of(**values)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("changes", [{}, {"layers": 5, "width": 96, "tied": True, "experts": 3}])
def test_a_shape_counts_what_the_model_has(architecture: Architecture, changes: dict[str, int | bool]) -> None:
    described = shape(architecture, **changes)
    model = build(described, 0, 0)
    assert described.parameters == sum(each.numel() for each in model.parameters())
    # Independent of the formulas: what each role's parameters hold, less the experts that a token does not pass.
    roles, passed = roles_of(model), 0
    for name, each in model.named_parameters():
        routed = name.endswith("mlp.gate.weight")
        share = described.experts_per_token / each.shape[0] if each.ndim == 3 and roles[name] == "matrix" else 1
        passed += round(each.numel() * share) if roles[name] in ("matrix", "output") or routed else 0
    if described.tied:
        passed += model.get_input_embeddings().weight.numel()
    assert described.matrix_parameters == passed


def test_roles_by_what_a_parameter_is() -> None:
    found = {name: roles_of(build(shape(name), 0, 0)) for name in ARCHITECTURES}
    layer = "model.layers.0."
    assert found["mixtral"][f"{layer}mlp.experts.gate_up_proj"] == "matrix"
    assert found["mixtral"][f"{layer}mlp.gate.weight"] == "norm"
    for name in ("conv1d.weight", "conv1d.bias", "A_log", "D", "dt_bias", "norm.weight"):
        assert found["bamba"][f"{layer}mamba.{name}"] == "norm"
    assert found["bamba"][f"{layer}mamba.in_proj.weight"] == "matrix"
    assert found["modernbert"]["model.embeddings.tok_embeddings.weight"] == "embedding"
    assert found["modernbert"]["decoder.weight"] == "output"
    assert found["t5"]["shared.weight"] == "embedding"
    assert found["t5"]["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] == "norm"
    for roles in found.values():
        assert list(roles.values()).count("embedding") == 1


def test_each_expert_is_orthogonalised_apart(margins: Margins) -> None:
    model = build(shape("mixtral"), 0, 0)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    name = "model.layers.0.mlp.experts.gate_up_proj"
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradient = dict(model.named_parameters())[name].grad
    assert gradient is not None
    gradient[0] = torch.randn(gradient[0].shape, generator=torch.Generator().manual_seed(0))
    gradient[1] = 1e-4 * gradient[0].flip(0)  # small against the first, and yet its update is as large
    Optimizer(model, RATES, World()).step(0, 1.0)
    moved = dict(model.named_parameters())[name].detach() - before[name] * (1 - RATES.matrix * RATES.weight_decay)
    sizes = [float(torch.linalg.matrix_norm(each)) for each in moved]
    margins.error("size of the smaller update", abs(sizes[1] / sizes[0] - 1), most=0.05)
    margins.effect("size of the update", sizes[0], least=0.05)
    margins.error("size of no update", max(sizes[2:]), most=1e-6)


def test_balance_is_least_when_tokens_are_spread_evenly() -> None:
    logits = torch.zeros(8, 4)
    logits[torch.arange(8), torch.arange(8) % 4] = 4.0
    logits[torch.arange(8), (torch.arange(8) + 1) % 4] = 3.0
    even = balance_loss((logits,), 2)
    assert float(even) == pytest.approx(2.0, abs=1e-5)
    crowded = torch.tensor([4.0, 3.0, 0.0, 0.0]).repeat(8, 1)
    assert float(balance_loss((crowded,), 2)) > 3.5
    # Two blocks that prefer opposite experts do not hide each other.
    assert float(balance_loss((crowded, crowded.flip(1)), 2)) > 3.5


@dataclass(frozen=True)
class Run:
    """A trained architecture."""

    export: Path
    figures: dict[str, object]
    losses: list[float]
    learned: list[float | None]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token files of a hidden rule, and a tokenizer of bytes beside them."""
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "tokenizer").mkdir()
    learned = vocabulary.learn(["def f(): pass\n"] * 100, VOCABULARY_SIZE, SPANS)
    vocabulary.write(learned, folder / "tokenizer", SPANS)
    (folder / "tokens").mkdir()
    text = np.cumsum(np.random.default_rng(0).integers(1, 3, size=4096)) % 60 + len(special_tokens(SPANS)) + 1
    text[511::512] = 0
    for split in SPLITS:
        with TokenWriter(folder / "tokens", split, vocabulary_size=VOCABULARY_SIZE, shard_tokens=4096) as writer:
            writer.append(text, np.full(8, 512))
        rows = pl.DataFrame({"id": [f"{split}{number}" for number in range(8)], "bytes": [512] * 8})
        rows.write_parquet(folder / "tokens" / f"{split}.documents.parquet")
    return folder


def train(architecture: Architecture, tokens: Path, run: Path, *, start: bool = False) -> Run:
    """Through the worker of the stage, in this process; from chance, or with what a new decoder is given to start."""
    described = shape(architecture)
    objectives = ASKED[described.kind] | {"isolate_documents": not described.recurrent}
    plan = Plan(
        mode="fixed",
        deadline_hours=1,
        stage_seconds={},
        shape=described,
        sequence_length=32,
        batch_samples=8,
        micro_batch_samples=4,
        num_workers=1,
        device="cpu",
        precision="float32",
        compiled=False,
        steps=STEPS,
        validate_every_steps=STEPS,
    )
    given = PretrainConfig() if start else PretrainConfig(bigram_steps=0, induction_head=False)
    config = PretrainConfig(
        bigram_steps=given.bigram_steps,
        induction_head=given.induction_head,
        warmup_steps=2,
        report_every_steps=3,
        final_validation_bytes=2000,
        objectives=ObjectivesConfig.model_validate(objectives),
    )
    rows: list[dict[str, object]] = []
    work = Work(
        config=config,
        plan=plan,
        tokens=tokens / "tokens",
        tokenizer=tokens / "tokenizer",
        run=run,
        training_ends_at=None,
        threads=1,
    )
    try:
        figures = train_worker(work, World(), report=rows.append, agree=lambda value: value)
    finally:
        torch.use_deterministic_algorithms(False)
    rows = [row for row in rows if row.get("step")]
    losses = [float(str(row["loss"])) for row in rows]
    return Run(run / "export", figures, losses, [row["validation_bits_per_byte"] for row in rows])  # type: ignore[misc]


@pytest.fixture(scope="module")
def trained(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Run]:
    """Each architecture, trained once."""
    runs: dict[str, Run] = {}

    def get(architecture: Architecture) -> Run:
        if architecture not in runs:
            runs[architecture] = train(architecture, tokens, tmp_path_factory.mktemp(architecture))
        return runs[architecture]

    return get


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_learns_and_is_read_again(
    architecture: Architecture, trained: Callable[[Architecture], Run], margins: Margins
) -> None:
    run, kind = trained(architecture), TABLE[architecture][0]
    assert shape(architecture).kind == kind
    margins.effect("fall of the loss", run.losses[0] - run.losses[-1], least=2.0 if kind != "encoder" else 0.4)
    if kind == "decoder":
        assert 0 < run.figures["validation_bits_per_byte"] < 8  # type: ignore[operator]
    else:  # never a number of another meaning under that name
        assert "validation_bits_per_byte" not in run.figures
        assert run.learned == [None] * len(run.learned)
        assert 0 < run.figures["validation_nats_per_label"] < run.losses[0]  # type: ignore[operator]
    loader = {"decoder": AutoModelForCausalLM, "encoder": AutoModelForMaskedLM}.get(kind, AutoModelForSeq2SeqLM)
    model = loader.from_pretrained(run.export, dtype=torch.float32, local_files_only=True).eval()
    written = torch.tensor([[30, 31, 33, 34, 36, 37, 39, 40]])
    ours = build(shape(architecture), 1, 0).eval()
    ours.load_state_dict(model.state_dict())  # every weight of the file has a place in what was trained
    more = {"decoder_input_ids": written} if kind == "encoder-decoder" else {}
    if more:  # generation begins as training did: with what fills up rows
        assert model.generation_config.decoder_start_token_id == model.generation_config.pad_token_id
    with torch.no_grad():
        logits = model(written, **more).logits, ours(written, **more).logits
        margins.close("logits", *logits, rtol=1e-4, atol=1e-4)
        assert AutoModel.from_pretrained(run.export, dtype=torch.float32, local_files_only=True)(written, **more)


def test_a_decoder_begins_as_a_bigram_model_that_copies(tokens: Path, tmp_path: Path, margins: Margins) -> None:
    """Which says most of what there is to know here before it has learned anything."""
    begun = train("qwen3", tokens, tmp_path, start=True)
    margins.effect("below chance at once", math.log(VOCABULARY_SIZE) - begun.losses[0], least=2.8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_is_served_or_refused(
    architecture: Architecture, trained: Callable[[Architecture], Run], tmp_path: Path, margins: Margins
) -> None:
    _, engine_name, takes_sft = TABLE[architecture]
    export = trained(architecture).export
    if engine_name is None:
        for name in (None, "ctranslate2", "transformers"):
            with pytest.raises(ArtifactError, match=r"is no decoder, so no engine serves it"):
                open_engine(export, name)
    else:
        assert engine_for(export) == engine_name
        engine = open_engine(export, cache=tmp_path, num_threads=1)
        assert engine.name == engine_name
        prompts = [[0, 30, 31, 33], [0, 40, 41]]
        (first,), (second,) = engine.generate(prompts, Sampling(max_new_tokens=4), stop_ids=[0])
        assert 0 < len(first.tokens) <= 4
        assert 0 < len(second.tokens) <= 4
        found = engine.score(prompts)
        engine.close()
        model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32, local_files_only=True).eval()
        for prompt, scores in zip(prompts, found, strict=True):
            with torch.no_grad():
                wanted = torch.log_softmax(model(torch.tensor([prompt])).logits[0], dim=-1)
            expected = [float(wanted[place, token]) for place, token in enumerate(prompt[1:])]
            margins.error("log-probabilities", float(np.abs(np.array(expected) - scores).max()), most=2e-4)
    if engine_name == "transformers":
        with pytest.raises(ArtifactError, match=r"model_type is \w+, the ctranslate2 engine needs llama or qwen3"):
            open_engine(export, "ctranslate2", cache=tmp_path)
    if takes_sft:
        assert load_model(export, kind_of(architecture)).config.model_type == architecture
    else:
        with pytest.raises(DataError, match="is an encoder, which answers nothing"):
            require_answers(export)
