"""Every engine against a plain forward pass of transformers; the conversion; what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from components.core.config import environment
from components.core.errors import ArtifactError, ConfigError
from components.core.graph.closure import ROOT, closure
from components.inference.ctranslate2_engine import prompt_batches
from components.inference.ctranslate2_model import converted
from components.inference.engine import Completion, Engine, Sampling
from components.inference.open import CLASSES, open_engine
from components.inference.transformers_engine import TransformersEngine
from tests.margins import Margins
from tests.serving.random_model import write_random_model

pytestmark = pytest.mark.numeric

VOCABULARY = 512
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
    "initializer_range": 0.15,
}
# Not 10,000, which ctranslate2's own converter takes when it does not find the key.
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}
GROUPED = {"num_key_value_heads": 2}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **ROPE, **GROUPED, tie_word_embeddings=True)),
    "llama-untied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **ROPE, tie_word_embeddings=False)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, **ROPE, **GROUPED, head_dim=24, tie_word_embeddings=False)),
    "qwen3-bfloat16": lambda: MODELS["qwen3"]().to(torch.bfloat16),
}

ModelDir = Callable[[str], Path]
GREEDY = Sampling(max_new_tokens=20)
PROMPTS = [np.random.default_rng(n).integers(0, VOCABULARY, n).tolist() for n in (5, 64, 1, 33, 64, 5, 200)]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a model by its name in MODELS, written once a session; norms are random, too."""
    root = tmp_path_factory.mktemp("models")

    def make(name: str) -> Path:
        out = root / name
        if not out.exists():
            torch.manual_seed(0)
            model = MODELS[name]()
            for parameter_name, parameter in model.named_parameters():
                if "norm" in parameter_name:
                    torch.nn.init.uniform_(parameter, 0.5, 1.5)
            model.save_pretrained(out)
        return out

    return make


@pytest.fixture(params=[(engine, model) for model in MODELS for engine in CLASSES], ids="-".join)
def opened(request: pytest.FixtureRequest, model_dir: ModelDir, tmp_path: Path) -> Iterator[tuple[Engine, Path]]:
    """Each engine on each model."""
    engine_name, model_name = request.param
    directory = model_dir(model_name)
    engine = open_engine(directory, engine_name, num_threads=1, cache=tmp_path)
    yield engine, directory
    engine.close()


@torch.inference_mode()
def forward(directory: Path, tokens: list[int]) -> np.ndarray:
    """Natural-log probabilities of every next token, shape (T, vocabulary), from one unpadded forward pass."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model(torch.tensor([tokens])).logits[0].log_softmax(-1).numpy()


def test_scores_are_those_of_a_forward_pass(opened: tuple[Engine, Path], margins: Margins) -> None:
    engine, directory = opened
    for tokens, found in zip(PROMPTS, engine.score(PROMPTS), strict=True):
        assert found.dtype == np.float32
        wanted = forward(directory, tokens)[np.arange(len(tokens) - 1), tokens[1:]]
        margins.error("log-probabilities", float(np.abs(found - wanted).max(initial=0.0)), most=1e-3)


def test_predictions_are_those_of_a_forward_pass(opened: tuple[Engine, Path], margins: Margins) -> None:
    """Of the true token and of the best one; where a true token is the best one, it says so."""
    engine, directory = opened
    (greedy,) = engine.generate([PROMPTS[1]], GREEDY, stop_ids=[])
    prompts = [*PROMPTS, [*PROMPTS[1], *greedy[0].tokens]]
    for tokens, found in zip(prompts, engine.predict(prompts), strict=True):
        wanted = forward(directory, tokens)[:-1]
        assert found.log_probs.dtype == found.top_log_probs.dtype == np.float32
        true = wanted[np.arange(len(tokens) - 1), tokens[1:]]
        margins.error("of the true token", float(np.abs(found.log_probs - true).max(initial=0.0)), most=1e-3)
        margins.error(
            "of the best token", float(np.abs(found.top_log_probs - wanted.max(-1)).max(initial=0.0)), most=1e-3
        )
        assert found.is_top.tolist() == (wanted.argmax(-1) == tokens[1:]).tolist()
    assert found.is_top[-len(greedy[0].tokens) :].all()


def test_greedy_takes_the_best_token_at_every_step(opened: tuple[Engine, Path]) -> None:
    """Prompts of different lengths in one call, each as if it were alone."""
    engine, directory = opened
    for prompt, (completion,) in zip(PROMPTS, engine.generate(PROMPTS, GREEDY, stop_ids=[]), strict=True):
        assert (len(completion.tokens), completion.finish_reason) == (20, "length")
        best = forward(directory, [*prompt, *completion.tokens]).argmax(-1)[len(prompt) - 1 : -1]
        assert completion.tokens == tuple(best)


def test_prompts_of_different_lengths_run_together_and_change_nothing(opened: tuple[Engine, Path]) -> None:
    """Drawn from the best token alone, so that what each prompt must give is known; some prompts hold the stop."""
    engine, _ = opened
    prompts = [PROMPTS[6][start : start + length] for start, length in enumerate((1, 2, 3, 3, 5, 8, 9, 13, 14))]
    alone = [engine.generate([prompt], GREEDY, stop_ids=PROMPTS[6][:3])[0][0] for prompt in prompts]
    sampling = Sampling(max_new_tokens=20, temperature=1.0, top_p=1e-7, num_samples=3)
    together = engine.generate(prompts, sampling, stop_ids=PROMPTS[6][:3])
    assert together == [[each] * 3 for each in alone]
    assert engine.generate(prompts, replace(sampling, top_p=1.0, top_k=1), stop_ids=PROMPTS[6][:3]) == together


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 8), st.integers(0, 20))
def test_batches_of_prompts_keep_to_their_bounds(lengths: list[int], size: int, spread: int) -> None:
    batches = prompt_batches(lengths, size, spread)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        shortest, *_, longest = sorted([lengths[index] for index in batch] * 2)
        assert len(batch) <= size and longest - shortest <= spread
        assert longest == 1 or shortest > 1, "a prompt of one token runs with its like alone"


def test_a_stop_token_ends_and_is_left_out(opened: tuple[Engine, Path]) -> None:
    engine, _ = opened
    for prompt, (free,) in zip(PROMPTS, engine.generate(PROMPTS, GREEDY, stop_ids=[]), strict=True):
        stop = free.tokens[7]
        wanted = Completion(tokens=free.tokens[: free.tokens.index(stop)], finish_reason="stop", stop_id=stop)
        assert wanted.ids == (*wanted.tokens, stop) and free.ids == free.tokens
        unrelated = next(token for token in range(VOCABULARY) if token not in free.tokens)
        assert engine.generate([prompt], GREEDY, stop_ids=[unrelated, stop]) == [[wanted]]


def test_a_prompt_may_hold_the_token_that_ends(opened: tuple[Engine, Path]) -> None:
    engine, _ = opened
    prompts = [[0, 7, 0, 9], [0, 7, 0, 9, 0, 0, 11]]
    together = engine.generate(prompts, GREEDY, stop_ids=[0])
    assert together == [engine.generate([prompt], GREEDY, stop_ids=[0])[0] for prompt in prompts]


def test_samples_repeat_with_their_seed(opened: tuple[Engine, Path]) -> None:
    engine, _ = opened

    def draw(seed: int) -> list[list[Completion]]:
        sampling = Sampling(max_new_tokens=12, temperature=1.0, num_samples=3, seed=seed)
        return engine.generate(PROMPTS, sampling, stop_ids=[])

    first = draw(7)
    assert first == draw(7)
    assert first != draw(8)
    assert all(len(set(samples)) == 3 for samples in first)
    equal = engine.generate([PROMPTS[0]] * 8, replace(GREEDY, temperature=1.0, num_samples=3), stop_ids=[])
    assert len({each.tokens for samples in equal for each in samples}) == 24, "no stream draws what another one draws"
    greedy = engine.generate(PROMPTS[:1], Sampling(max_new_tokens=3, num_samples=2), stop_ids=[])[0]
    assert greedy[0] == greedy[1]


def test_samples_follow_the_distribution(opened: tuple[Engine, Path]) -> None:
    """Counts of 2,000 first tokens against their probabilities: chi-square over the 20 likeliest and the rest."""
    engine, directory = opened
    prompt = PROMPTS[0]
    probabilities = np.exp(forward(directory, prompt)[-1].astype(np.float64) * 2)  # temperature 0.5
    probabilities /= probabilities.sum()
    sampling = Sampling(max_new_tokens=1, temperature=0.5, num_samples=2000, seed=3)
    tokens = [completion.tokens[0] for completion in engine.generate([prompt], sampling, stop_ids=[])[0]]
    order = np.argsort(-probabilities)[:20]
    counts = np.bincount(tokens, minlength=VOCABULARY)[order]
    found, wanted = np.append(counts, 2000 - counts.sum()), 2000 * np.append(probabilities[order], 0)
    wanted[-1] = 2000 - wanted.sum()
    assert ((found - wanted) ** 2 / wanted).sum() < 45.3  # 99.9 % of chi-square with 20 degrees of freedom


@pytest.mark.parametrize(
    "changes",
    [{"temperature": 0.3}, {"temperature": 1.0}, {"temperature": 1.5, "top_p": 0.7, "top_k": 20}, {}],
    ids=str,
)
def test_log_probabilities_are_the_models_own_however_it_samples(
    opened: tuple[Engine, Path], changes: dict[str, float], margins: Margins
) -> None:
    """Of every sampled token, the one that ended it included, as a forward pass over exactly those tokens says."""
    engine, directory = opened
    sampling = Sampling(max_new_tokens=40, num_samples=2, log_probs=True, **changes)  # type: ignore[arg-type]
    completions = engine.generate(PROMPTS[:3], sampling, stop_ids=range(0, VOCABULARY, 16))
    for prompt, row in zip(PROMPTS, completions, strict=False):
        for each in row:
            assert each.log_probs is not None and each.log_probs.shape == (len(each.ids),)
            assert (each.stop_id is None) == (each.finish_reason == "length")
            logs = forward(directory, [*prompt, *each.ids])[len(prompt) - 1 : -1]
            wanted = logs[np.arange(len(each.ids)), each.ids]
            margins.error("log-probabilities", float(np.abs(each.log_probs - wanted).max()), most=3e-4)
            scored = engine.score([[*prompt, *each.ids]])[0][len(prompt) - 1 :]
            assert np.allclose(each.log_probs, scored, atol=1e-4)
    ended = {each.stop_id for row in completions for each in row}
    assert len(ended) > 1, "some end by themselves"
    plain = engine.generate(PROMPTS[:1], Sampling(max_new_tokens=2), stop_ids=[])[0][0]
    assert plain.log_probs is None


@pytest.mark.parametrize("bad", [[], [VOCABULARY], [3, -1]])
def test_impossible_tokens_are_refused(opened: tuple[Engine, Path], bad: list[int]) -> None:
    engine, _ = opened
    for call in (
        lambda: engine.score([[1], bad]),
        lambda: engine.predict([[1], bad]),
        lambda: engine.generate([[1], bad], GREEDY, stop_ids=[]),
    ):
        with pytest.raises(ValueError, match="sequence 1 has"):
            call()


def test_other_weights_are_taken_in_place(opened: tuple[Engine, Path], tmp_path: Path, margins: Margins) -> None:
    """Everything said afterwards, samples with a seed included, is what an engine that opens them says."""
    engine, directory = opened
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "other")
    before = engine.score(PROMPTS)
    weights = {name: each.detach().numpy() for name, each in model.named_parameters()}
    with pytest.raises(ArtifactError, match=r"needed|layers"):
        engine.load({name: each for name, each in weights.items() if "layers.2" not in name}, "short")
    with pytest.raises(ArtifactError, match="needed"):
        engine.load({**weights, "model.embed_tokens.weight": weights["model.embed_tokens.weight"][:8]}, "narrow")
    for one, other in zip(before, engine.score(PROMPTS), strict=True):
        assert np.array_equal(one, other), "a refusal must leave the weights"
    assert engine.version == ""
    engine.load(weights, "one")
    assert engine.version == "one"
    fresh = open_engine(tmp_path / "other", engine.name, num_threads=1, cache=tmp_path / "cache")
    for old, one, other in zip(before, engine.score(PROMPTS), fresh.score(PROMPTS), strict=True):
        margins.error("log-probabilities", float(np.abs(one - other).max(initial=0.0)), most=1e-4)
        assert len(one) < 2 or np.abs(one - old).max() > 1e-2
    sampling = Sampling(max_new_tokens=8, temperature=1.0, num_samples=2, seed=3)
    assert engine.generate(PROMPTS, sampling, stop_ids=[]) == fresh.generate(PROMPTS, sampling, stop_ids=[])
    fresh.close()


def test_nothing_to_do(opened: tuple[Engine, Path]) -> None:
    engine, _ = opened
    assert engine.generate([], GREEDY, stop_ids=[]) == engine.score([]) == engine.predict([]) == []
    assert (engine.context_tokens, engine.vocabulary_size) == (256, VOCABULARY)


def test_conversion_is_kept_and_follows_the_weights(model_dir: ModelDir, tmp_path: Path) -> None:
    copy = shutil.copytree(model_dir("llama"), tmp_path / "model")
    first = converted(copy, tmp_path / "cache")
    written = (first / "model.bin").stat().st_mtime_ns
    assert converted(copy, tmp_path / "cache") == first
    assert (first / "model.bin").stat().st_mtime_ns == written
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert converted(copy, tmp_path / "cache") != first
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is gpt2, the ctranslate2 engine needs llama or qwen3"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is yarn"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"rope_parameters": {"rope_type": "default"}}, "no rope_theta"),
    ],
)
def test_what_the_conversion_does_not_cover(
    model_dir: ModelDir, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    copy = shutil.copytree(model_dir("llama"), tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ArtifactError, match=message):
        converted(copy, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_conversion_that_was_altered_is_made_anew(model_dir: ModelDir, tmp_path: Path) -> None:
    out = converted(model_dir("llama"), tmp_path)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "model.bin").write_bytes(b"cut")
    (out / "vocabulary.txt").write_text("another")
    assert converted(model_dir("llama"), tmp_path) == out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    assert list(tmp_path.iterdir()) == [out]


def test_an_altered_model_is_not_kept_under_the_digest_of_the_right_one(tmp_path: Path) -> None:
    """Its manifest is the right one's, and so is its key."""
    model, other = write_random_model(tmp_path / "model", 1), write_random_model(tmp_path / "other", 2)
    shutil.copyfile(other / "model.safetensors", model / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"model\.safetensors: found sha256"):
        converted(model, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("engine", CLASSES)
def test_weights_are_the_file_or_what_the_index_names(model_dir: ModelDir, tmp_path: Path, engine: str) -> None:
    """Whatever else lies there: other weights, of this model or of another one, change nothing."""
    wanted = _greedy(model_dir("llama"), engine, tmp_path)
    copy = shutil.copytree(model_dir("llama"), tmp_path / "model")
    for name in ("model_zz.safetensors", "model-00001-of-00001.safetensors", "consolidated.safetensors"):
        shutil.copyfile(model_dir("qwen3") / "model.safetensors", copy / name)
    assert _greedy(copy, engine, tmp_path) == wanted
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(safe_open(copy / "model.safetensors", "np").keys(), "model-a.safetensors"),
    }
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    (copy / "model.safetensors").rename(copy / "model-a.safetensors")
    assert _greedy(copy, engine, tmp_path) == wanted


@pytest.mark.parametrize(
    "index",
    ["[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": "../model.safetensors"}}', '{"weight_map": {"a": 1}}'],
)
def test_an_index_that_names_no_files_beside_it_is_refused(model_dir: ModelDir, tmp_path: Path, index: str) -> None:
    copy = shutil.copytree(model_dir("llama"), tmp_path / "model")
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ArtifactError, match=r"model\.safetensors\.index\.json: (cannot be read|names)") as error:
        converted(copy, tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_what_a_folder_says_about_sampling_changes_nothing(model_dir: ModelDir, tmp_path: Path) -> None:
    copy = shutil.copytree(model_dir("llama"), tmp_path / "model")
    settings = {"repetition_penalty": 9.0, "suppress_tokens": list(range(256)), "num_beams": 3, "max_length": 7}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    assert _greedy(copy, "transformers", tmp_path) == _greedy(model_dir("llama"), "transformers", tmp_path)


def test_an_adapter_is_refused(model_dir: ModelDir, tmp_path: Path) -> None:
    copy = shutil.copytree(model_dir("llama"), tmp_path / "model")
    (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model_dir("qwen3"))}))
    with pytest.raises(ArtifactError, match=r"found a LoRA adapter.*merge it first"):
        TransformersEngine(copy)


def _greedy(directory: Path, name: str, cache: Path) -> list[list[Completion]]:
    """What a model continues prompts with."""
    engine = open_engine(directory, name, num_threads=1, cache=cache / "engines" if name == "ctranslate2" else None)
    found = engine.generate(PROMPTS, GREEDY, stop_ids=[])
    engine.close()
    return found


def test_older_rope_key_is_read(model_dir: ModelDir, tmp_path: Path) -> None:
    """transformers 4 wrote rope_theta beside the other keys."""
    copy = shutil.copytree(model_dir("llama"), tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (copy / "config.json").write_text(json.dumps(config))
    old = (converted(copy, tmp_path / "cache") / "model.bin").read_bytes()
    assert old == (converted(model_dir("llama"), tmp_path / "cache") / "model.bin").read_bytes()


def test_open_engine_says_what_is_wrong(tmp_path: Path, model_dir: ModelDir) -> None:
    with pytest.raises(ConfigError, match="engine is 'vlm'; allowed: ctranslate2, transformers"):
        open_engine(tmp_path, "vlm")  # type: ignore[arg-type]
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"config\.json: cannot be read: found list, needed an object"):
        open_engine(tmp_path)
    for name in CLASSES:
        with pytest.raises(ArtifactError, match=r"config\.json: cannot be read"):
            open_engine(tmp_path / "absent", name)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"compute_type|ctranslate2: .*this machine has"):
            open_engine(model_dir("llama"), name, compute_type="int3")  # type: ignore[arg-type]


def test_ctranslate2_needs_neither_torch_nor_transformers(model_dir: ModelDir, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from components.inference.open import open_engine\n"
        f"open_engine(Path({str(model_dir('llama'))!r})).score([[1, 2]])\n"
        "heavy = {'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environ = {**environment(), "OVERNIGHT_STATE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=environ)
    assert list((tmp_path / "engines").glob("ctranslate2-*"))


def test_engines_count_as_code_of_whoever_opens_one() -> None:
    files = {path.name for path in closure(ROOT / "components" / "inference" / "open.py")}
    assert {"ctranslate2_engine.py", "ctranslate2_model.py", "transformers_engine.py"} <= files


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0, needed at least 1"),
        ({"max_new_tokens": 1, "temperature": -1.0}, "temperature is -1"),
        ({"max_new_tokens": 1, "top_p": 0.0}, "top_p is 0"),
        ({"max_new_tokens": 1, "num_samples": 0}, "num_samples is 0"),
        ({"max_new_tokens": 1, "temperature": 1e39}, r"temperature is 1e\+39, needed at least 0 and in float32"),
        ({"max_new_tokens": 1, "temperature": float("nan")}, "temperature is nan"),
        ({"max_new_tokens": 1, "seed": 2**32}, "seed is 4294967296, needed at least 0 and below 4294967296"),
        ({"max_new_tokens": 1, "seed": -1}, "seed is -1"),
    ],
)
def test_sampling_has_bounds(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", CLASSES)
def test_every_sampling_is_one_that_an_engine_takes(model_dir: ModelDir, engine: Any, tmp_path: Path) -> None:
    """At the bounds of float32 and of 32 bits, and beyond what the vocabulary holds."""
    opened = open_engine(
        model_dir("llama"), engine, num_threads=1, **({"cache": tmp_path} if engine != "transformers" else {})
    )
    ((greedy,),) = opened.generate([[1, 2]], Sampling(max_new_tokens=4), stop_ids=[])
    for values in ({"temperature": 1e-46}, {"temperature": 1e-39}, {"temperature": 1.0, "top_p": 1e-50}):
        assert opened.generate([[1, 2]], Sampling(max_new_tokens=4, **values), stop_ids=[]) == [[greedy]]
    for values in ({"temperature": 3e38}, {"temperature": 1e-5}, {"top_k": 2**40}, {"seed": 2**32 - 1}):
        sampling = Sampling(**{"max_new_tokens": 4, "temperature": 1.0, **values})
        ((sample,),) = opened.generate([[1, 2]], sampling, stop_ids=[])
        assert len(sample.tokens) == 4 and max(sample.tokens) < VOCABULARY
    opened.close()


@pytest.mark.parametrize("engine", CLASSES)
def test_weights_that_are_cut_short_are_told_in_one_line(model_dir: ModelDir, engine: Any, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    shutil.copytree(model_dir("llama"), copied)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=f"{copied}.*header") as error:
        open_engine(copied, engine, cache=tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_a_pickle_is_refused_unread(model_dir: ModelDir, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    shutil.copytree(model_dir("llama"), copied)
    torch.save(MODELS["llama"]().state_dict(), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"found pytorch_model\.bin, a pickle, which is never loaded"):
        TransformersEngine(copied)


def two_sets(model: Path) -> None:
    """A second set of weights, under a name that no library asks for, of other numbers."""
    weights = load_file(model / "model.safetensors")
    save_file({name: torch.zeros_like(each) for name, each in weights.items()}, model / "model-copy.safetensors")


def shards(model: Path) -> None:
    """The same weights in two shards and an index, beside a model.safetensors that belongs to no index."""
    weights = load_file(model / "model.safetensors")
    half = sorted(weights)[: len(weights) // 2]
    weight_map = {name: f"part-{1 if name in half else 2}.safetensors" for name in weights}
    for file in set(weight_map.values()):
        part = {name: each for name, each in weights.items() if weight_map[name] == file}
        save_file(part, model / file, metadata={"format": "pt"})
    save_file({name: torch.zeros_like(each) for name, each in weights.items()}, model / "model.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def stored_twice(model: Path) -> None:
    """A tied model that stores its output embedding, equal to the input embedding."""
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("engine", CLASSES)
@pytest.mark.parametrize("change", [two_sets, shards, stored_twice])
def test_a_model_is_what_its_index_or_model_safetensors_names(
    model_dir: ModelDir, engine: Any, change: Callable[[Path], None], tmp_path: Path
) -> None:
    copied = tmp_path / "model"
    shutil.copytree(model_dir("llama"), copied)
    (copied / "manifest.json").unlink(missing_ok=True)
    prompt = [[1, 2, 3, 4, 5, 6]]
    (wanted,) = open_engine(copied, engine, cache=tmp_path / "whole").score(prompt)
    change(copied)
    (found,) = open_engine(copied, engine, cache=tmp_path / "changed").score(prompt)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("engine", CLASSES)
def test_two_different_embeddings_are_both_used_whatever_the_configuration_says(
    model_dir: ModelDir, engine: Any, tmp_path: Path
) -> None:
    copied = tmp_path / "model"
    shutil.copytree(model_dir("llama"), copied)
    (copied / "manifest.json").unlink(missing_ok=True)
    weights = load_file(copied / "model.safetensors")
    weights["lm_head.weight"] = torch.zeros_like(weights["model.embed_tokens.weight"])
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    (found,) = open_engine(copied, engine, cache=tmp_path / "cache").score([[1, 2, 3]])
    rows = len(weights["lm_head.weight"])
    assert found == pytest.approx(np.full(2, -np.log(rows)), rel=1e-5)


@pytest.mark.parametrize("engine", CLASSES)
@pytest.mark.parametrize("setting", ["num_hidden_layers", "num_key_value_heads", "vocab_size"])
def test_a_configuration_of_another_model_is_refused(
    model_dir: ModelDir, engine: Any, setting: str, tmp_path: Path
) -> None:
    copied = tmp_path / "model"
    shutil.copytree(model_dir("llama"), copied)
    (copied / "manifest.json").unlink(missing_ok=True)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {setting: config[setting] * 2}))
    with pytest.raises(ArtifactError, match=f"{copied}: .*") as error:
        open_engine(copied, engine, cache=tmp_path / "cache")
    assert "\n" not in str(error.value)
