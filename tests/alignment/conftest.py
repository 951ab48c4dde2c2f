"""A tiny random Llama, a tiny tokenizer, a hand-made corpus and a plan: real inputs for the stages of alignment."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from components.alignment import align, instructions
from components.alignment.config import CorpusConfig, CurriculumConfig, InstructionsConfig
from components.alignment.examples.functions import extract
from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig
from components.data.documents.document import document_id
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import END_OF_TEXT, FIM_PAD, SPECIAL_TOKENS
from components.tokens.shards.token_store import Split, TokenWriter
from components.training.config import Plan
from components.training.engine.model.shape import Shape
from tests.alignment.stages import ALIGN, run_preferences, run_sft

MODULE = '''
"""Functions about {noun}."""
import math


def add_{noun}(a, b):
    """Add two {noun}.

    >>> add_{noun}(1, 2)
    3
    """
    total = a + b
    return total


def scale_{noun}(a, factor):
    """Scale {noun} by a factor."""
    return a * factor


class Holder:
    def count_{noun}(self):
        """Count the {noun}."""
        return len(self.items)


def root_{noun}(a):
    """Root of {noun}: root_{noun}(9) -> 3."""
    return math.isqrt(a)
'''
NOUNS = [f"{first}{second}" for first in ("apple", "bird", "car", "dog", "egg") for second in "abcdefghijkl"]
INSTRUCTIONS = InstructionsConfig(
    curriculum=CurriculumConfig(levels=("operator", "builtin", "composition"), tuning=60, heldout=6, pairs=24),
    corpus=CorpusConfig(heldout=8, pairs=24, derived=4),
)
SHAPE = Shape(
    architecture="llama",
    vocabulary_size=512,
    context=256,
    layers=1,
    width=32,
    heads=2,
    key_value_heads=1,
    feed_forward=64,
    rope_theta=10_000.0,
    tied=False,
)


class Made(StepConfig):
    """No parameters: the artifact was made by a test."""


def write_artifact(directory: Path, name: str, files: dict[str, bytes]) -> Path:
    """An artifact that holds the given files."""
    with artifact.create(directory / name, stage=name, config=Made(), inputs=[], code=Path(artifact.__file__)) as draft:
        for file, content in files.items():
            (draft.path / file).write_bytes(content)
    return directory / name


def make_plan(directory: Path, name: str, **changes: object) -> Path:
    """A plan artifact of fixed mode, with changes."""
    values: dict[str, object] = {
        "mode": "fixed",
        "deadline_hours": 0.2,
        "stage_seconds": {"sft": 45.0, "preferences": 40.0, "align": 45.0},
        "shape": SHAPE,
        "sequence_length": 256,
        "batch_samples": 8,
        "micro_batch_samples": 8,
        "num_workers": 1,
        "device": "cpu",
        "precision": "float32",
        "compiled": False,
        "steps": 10,
        "validate_every_steps": 10,
    }
    plan = Plan.model_validate({**values, **changes})
    return write_artifact(directory, name, {"plan.json": plan.model_dump_json().encode()})


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, source, tokens, instructions and plan as artifacts in one directory. Nouns 'egg*' are held out."""
    directory = tmp_path_factory.mktemp("world")
    texts = [MODULE.format(noun=noun) for noun in NOUNS]
    frame = pl.DataFrame(
        {"id": [document_id(text) for text in texts], "text": texts, "language": ["python"] * len(texts)}
    ).sort("id")
    train = frame.filter(~pl.col("text").str.contains("about egg"))
    frame.write_parquet(directory / "part-00000.parquet")
    write_artifact(directory, "source", {"part-00000.parquet": (directory / "part-00000.parquet").read_bytes()})
    _write_base(directory / "made", texts)
    write_artifact(directory, "base", {path.name: path.read_bytes() for path in (directory / "made").iterdir()})
    _write_tokens(directory, {"train": train, "validation": frame.join(train, on="id", how="anti")})
    make_plan(directory, "plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(directory / "state"))
        paths = {name: directory / name for name in ("source", "tokens")}
        instructions.run(INSTRUCTIONS, **paths, out=directory / "instructions")
    return directory


@pytest.fixture(scope="session")
def stages(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """Manifests of sft, preferences and aligned, run once, below world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(tmp_path_factory.mktemp("state")))
        return {
            "sft": run_sft(world, world / "sft"),
            "preferences": run_preferences(world, world / "preferences"),
            "aligned": align.run(
                ALIGN,
                sft=world / "sft",
                preferences=world / "preferences",
                instructions=world / "instructions",
                tokens=world / "tokens",
                plan=world / "plan",
                out=world / "aligned",
            ),
        }


def _write_tokens(directory: Path, splits: dict[Split, pl.DataFrame]) -> None:
    """The token files of both splits."""
    codec, code = TextCodec(directory / "base"), Path(artifact.__file__)
    with artifact.create(directory / "tokens", stage="tokens", config=Made(), inputs=[], code=code) as draft:
        for split, frame in splits.items():
            documents = [[*codec.encode(text), codec.special.end_of_text] for text in frame["text"]]
            with TokenWriter(draft.path, split, vocabulary_size=codec.vocabulary_size, shard_tokens=10_000) as writer:
                writer.append(np.concatenate(documents), np.array([len(each) for each in documents]))
            frame.select("id").write_parquet(draft.path / f"{split}.documents.parquet")


def _write_base(directory: Path, texts: list[str]) -> None:
    """A random Llama and a byte-level tokenizer with the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=FIM_PAD).save_pretrained(
        directory
    )
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=4,
        )
    ).save_pretrained(directory)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Events go to a directory of the test; no judge is configured."""
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("OVERNIGHT_JUDGE_URL", raising=False)
    return tmp_path / "state"


@pytest.fixture(scope="session")
def functions() -> dict[str, object]:
    """The four instructions of the module about apples, by name."""
    return {each.name: each for each in extract(MODULE.format(noun="apples"), "d")}


@pytest.fixture(scope="session")
def plan_maker() -> Callable[..., Path]:
    """make_plan, for tests that need another plan."""
    return make_plan


@pytest.fixture(scope="session")
def artifact_writer() -> Callable[[Path, str, dict[str, bytes]], Path]:
    """write_artifact, for tests that need another artifact."""
    return write_artifact
