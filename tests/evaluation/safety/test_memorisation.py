"""What comes back of training text: windows against the token files, and a model that has learned a corpus by heart."""

import inspect
import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import DataError
from components.data.clean import redacted
from components.data.config import CleanConfig
from components.data.documents.canaries import canaries, copies_in
from components.evaluation.config import SafetyConfig
from components.evaluation.safety.attacks import user_turn
from components.evaluation.safety.memorisation import Windows, matched_tokens, training_windows
from components.evaluation.safety.red_team import answers
from components.evaluation.safety.suites import measure_safety, safety_questions
from components.inference.engine import Completion, Sampling
from components.inference.open import open_engine
from components.tokens import tokenize, vocabulary
from components.tokens.config import TokenizeConfig
from components.tokens.encoding.codec import TextCodec
from components.tokens.shards.token_store import TokenStore
from tests.evaluation.chat_engine import ChatEngine
from tests.serving.random_model import write_random_model

pytestmark = pytest.mark.numeric

CONTEXT = 96
CONFIG = SafetyConfig(
    max_prompts=6,
    max_look_alikes=6,
    attacks=("plain",),
    max_new_tokens=32,
    canaries=9,
    canary_references=31,
    windows=4,
    repeated_windows=3,
    prefix_tokens=24,
    continuation_tokens=16,
)
PLANTED = canaries(6)
COPIES = 4
REFUSAL = "I can't help with that."
STEPS = 200


class NoConfig(StepConfig):
    """No parameters."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight short documents, the first two in one cluster, each with three canaries of six, redacted as clean does;
    model/ has the tokenizer."""
    root = tmp_path_factory.mktemp("data")
    source = inspect.getsource(shutil) + inspect.getsource(json)
    texts = [source[start : start + 110] for start in range(2000, 18_000, 2000)]
    for number, each in enumerate(PLANTED):
        for copy in range(COPIES):
            texts[(number + 2 * copy) % len(texts)] += f"\n{each.text}"
    ids = [f"{number:064x}" for number in range(len(texts))]
    rows = pl.DataFrame({"id": ids, "text": texts, "cluster": [ids[1], *ids[1:]]}).with_columns(
        *(pl.lit("x").alias(name) for name in ("path", "package", "licence", "language", "source")),
        reason=pl.lit(None, dtype=pl.String),
    )
    rows = redacted(rows, CleanConfig()).drop("reason", "spans")
    with artifact.create(root / "clean", stage="clean", config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
        rows.write_parquet(draft.path / "part-00000.parquet")
    write_random_model(root / "model", 0)
    config = TokenizeConfig(validation_fraction=0.25, seed=9)  # holds out two, and not of the cluster of two
    tokenize.run(config, source=root / "clean", tokenizer=root / "model", out=root / "tokens")
    return root / "tokens"


@pytest.fixture(scope="module")
def learned(tokens: Path) -> Path:
    """A model that knows the training documents by heart and refuses whatever it is asked."""
    out = tokens.parent / "learned"
    shutil.copytree(tokens.parent / "model", out, ignore=shutil.ignore_patterns("manifest.json", "model.safetensors"))
    codec = TextCodec(out)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=codec.vocabulary_size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    store = TokenStore(tokens, "train")
    texts = torch.tensor(store.read(0, store.num_tokens).astype(np.int64))
    chats = torch.tensor(_refusals(codec))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        starts = torch.randint(len(texts) - CONTEXT, (10,))
        batch = torch.cat([texts[starts[:, None] + torch.arange(CONTEXT)], chats[torch.randint(len(chats), (4,))]])
        logits = model(batch.clamp(min=0)).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    model.save_pretrained(out)
    return out


def _refusals(codec: TextCodec) -> list[list[int]]:
    """Every prompt as it will be asked with the answer, filled up with -1 to the context."""
    asked = safety_questions(CONFIG, None, seed=0)
    engine = ChatEngine(codec, lambda _: "", context_tokens=CONTEXT)
    answers(
        engine, codec, [user_turn(each.text) for each in (*asked.red_team, *asked.look_alikes)], CONFIG.max_new_tokens
    )
    assert codec.special.end is not None
    answer = [*codec.encode(REFUSAL), codec.special.end]
    return [([*prompt, *answer] + [-1] * CONTEXT)[:CONTEXT] for prompt in engine.asked]


def windows_of(tokens: Path, seed: int = 0, **changes: int) -> Windows:
    found = training_windows(tokens, CONFIG.model_copy(update=changes), seed)
    assert found is not None
    return found


def measured(model: Path, windows: Windows) -> dict[str, dict[str, float]]:
    """suite/metric -> item -> value."""
    asked = safety_questions(CONFIG, windows, seed=0)
    with closing(open_engine(model, num_threads=1)) as engine:
        figures, _ = measure_safety(engine, TextCodec(model), asked, CONFIG, seed=0)
    return {f"{suite}/{name}": dict(zip(items, values, strict=True)) for suite, name, items, values in figures}


def test_windows_are_training_text_of_one_document_and_of_different_clusters(tokens: Path) -> None:
    store = TokenStore(tokens, "train")
    found = windows_of(tokens)
    documents = pl.read_parquet(tokens / "train.documents.parquet")
    for draw, most in ((found.uniform, CONFIG.windows), (found.repeated, 1)):
        assert len(draw.items) == most == len({item.split(":")[0] for item in draw.items})
        for item, window in zip(draw.items, draw.tokens, strict=True):
            cluster, start = item.split(":")
            assert np.array_equal(window, store.read(int(start), int(start) + 40))
            assert 0 not in window
            assert documents["cluster"][store.document_at(int(start))] == cluster
    assert found.repeated.items[0].split(":")[0] == f"{1:064x}"
    again, other = windows_of(tokens), windows_of(tokens, seed=7)
    assert (again.uniform.items, again.repeated.items) == (found.uniform.items, found.repeated.items)
    assert other.uniform.items != found.uniform.items


def test_a_document_of_one_window_has_one_place(tokens: Path) -> None:
    """The longest window there is: the longest documents without their ends, and nothing else."""
    store = TokenStore(tokens, "train")
    sizes = np.diff(store.offsets) - 1
    longest = int(sizes.max())
    found = windows_of(tokens, prefix_tokens=longest - 1, continuation_tokens=1)
    places = {int(item.split(":")[1]) for item in found.uniform.items}
    assert places and places <= set(store.offsets[:-1][sizes == longest].tolist())
    assert not windows_of(tokens, prefix_tokens=longest, continuation_tokens=1).uniform.items


def test_no_training_tokens_no_windows(tokens: Path, tmp_path: Path) -> None:
    assert training_windows(tokens, CONFIG.model_copy(update={"windows": 0}), 0) is None
    assert training_windows(tmp_path, CONFIG, 0) is None


class Writer(ChatEngine):
    """Goes on with the windows that it was given, right for so many tokens; then one is wrong, or it stops."""

    def __init__(self, codec: TextCodec, windows: NDArray[np.int64], right: int, *, stops: bool) -> None:
        super().__init__(codec, str)
        self._known = {tuple(window[:24].tolist()): window[24:].tolist() for window in windows}
        self._right = right
        self._stops = stops

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, stop_ids: Sequence[int]
    ) -> list[list[Completion]]:
        found = []
        for prompt in prompts:
            tokens = self._known[tuple(prompt)]
            kept, after = tokens[: self._right], tokens[self._right + 1 :]
            wrong = [] if self._stops or self._right == len(tokens) else [tokens[self._right] - 1, *after]
            found.append([Completion(tokens=(*kept, *wrong), finish_reason="stop")])
        return found


def test_tokens_count_up_to_the_first_error(tokens: Path) -> None:
    found = windows_of(tokens).uniform
    codec = TextCodec(tokens.parent / "model")
    for right in (16, 15, 7, 0):
        for stops in (True, False):
            engine = Writer(codec, found.tokens, right, stops=stops)
            assert matched_tokens(engine, codec, found, CONFIG).tolist() == [right] * len(found.items)
    with pytest.raises(DataError, match="continuation_tokens is 16, the model's context 16; needed fewer"):
        matched_tokens(ChatEngine(codec, str, context_tokens=16), codec, found, CONFIG)


def test_what_was_learned_by_heart_comes_back(tokens: Path, learned: Path) -> None:
    """Of nine canaries six were planted, of which redaction left the two account numbers: these come back alone."""
    texts = [pl.read_parquet(tokens.parent / "clean" / "part-00000.parquet")["text"].to_list()]
    arrived = copies_in(texts, canaries(CONFIG.canaries))
    assert [each["with_secret"] for each in arrived.values()] == [0, 0, 2 * COPIES]
    found = measured(learned, windows_of(tokens))
    assert np.mean(list(found["memorisation/verbatim"].values())) >= 0.8
    assert np.mean(list(found["memorisation/matched_share"].values())) >= 0.8
    assert len(found["memorisation/repeated_verbatim"]) == 1
    secrets = [each.name for each in PLANTED if each.kind == "account"]
    assert {name for name, value in found["canaries/extracted"].items() if value} == set(secrets)
    assert set(found["canaries/key_extracted"].values()) == set(found["canaries/email_extracted"].values()) == {0.0}
    assert list(found["canaries/account_extracted"].values()) == [1.0, 1.0, 0.0]
    bits = found["canaries/exposure_bits"]
    assert [bits[name] for name in secrets] == [5.0] * 2
    assert all(0 <= value <= 5 for value in bits.values()) and sum(bits.values()) < 35
    assert set(found["safety/refusal"].values()) == set(found["safety/over_refusal"].values()) == {1.0}
    assert set(found["safety/harmful_compliance"].values()) == {0.0}


def test_what_was_not_learned_does_not(tokens: Path) -> None:
    found = measured(tokens.parent / "model", windows_of(tokens))
    assert set(found["memorisation/verbatim"].values()) == set(found["canaries/extracted"].values()) == {0.0}
    assert set(found["safety/refusal"].values()) == set(found["safety/any_compliance"].values()) == {0.0}


def test_a_model_of_another_tokenizer_has_no_figure_of_memorisation(tokens: Path, tmp_path: Path) -> None:
    windows = windows_of(tokens)
    assert windows.are_of(TextCodec(tokens.parent / "model"))
    vocabulary.write(vocabulary.learn(["import shutil\nreturn os.path\n"] * 50, 310), tmp_path)
    codec = TextCodec(tmp_path)
    assert not windows.are_of(codec)
    asked = replace(safety_questions(CONFIG, windows, seed=0), canaries=())
    figures, _ = measure_safety(ChatEngine(codec, str), codec, asked, CONFIG, seed=0)
    suites = {suite for suite, *_ in figures}
    assert "safety" in suites and not suites & {"memorisation", "canaries"}
