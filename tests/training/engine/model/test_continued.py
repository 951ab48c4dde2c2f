"""Going on from a foreign checkpoint: vocabulary, tokenize, plan, pretrain; and what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.alignment.examples.chat import prompt_tokens
from components.core import artifact
from components.core.errors import ConfigError, DataError
from components.inference.infilling_prompts import chat_prompt, completion_prompt, fim_prompt
from components.inference.open import CLASSES, engine_for, open_engine
from components.tokens import tokenize, vocabulary
from components.tokens.config import TokenizeConfig, VocabularyConfig
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import SpecialTokens
from components.tokens.foreign import adoption
from components.tokens.shards.token_store import TokenStore
from components.training import plan, pretrain
from components.training.config import Plan, PlanConfig, PretrainConfig, read_plan
from components.training.engine.model import continued
from components.training.engine.trainer import World
from components.training.engine.validation import nats
from components.training.run.held_out import Validation
from components.training.run.worker import model_of, train_worker
from components.training.run.worker_input import Work
from tests.margins import Margins
from tests.training.foreign import CONTEXT, KNOWN_TOKENS, ROWS, write_checkpoint, write_clean

pytestmark = pytest.mark.numeric

END = KNOWN_TOKENS - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foreign checkpoint, documents, and what vocabulary and tokenize make of them."""
    folder = tmp_path_factory.mktemp("continued")
    write_checkpoint(folder / "llama")
    clean = write_clean(folder / "clean")
    adoption.write_initial_path(str(folder / "llama"), folder / "initial.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(folder / "state"))
        initial = folder / "initial.json"
        vocabulary.run(VocabularyConfig(), source=clean, report=clean, out=folder / "tokenizer", initial=initial)
        config = TokenizeConfig(validation_fraction=0.2)
        tokenize.run(config, source=clean, tokenizer=folder / "tokenizer", out=folder / "tokens")
    for name in ("hardware.json", "laws.json"):
        (folder / name).write_text("{}")
    return folder


def planned(folder: Path, out: Path, **changes: object) -> Plan:
    """What the stage plan says."""
    values = {"mode": "fixed", "sequence_length": CONTEXT, "fixed": {"steps": 20}, **changes}
    config = PlanConfig.model_validate_json(json.dumps(values))
    files = {"tokens": folder / "tokens", "hardware": folder / "hardware.json", "laws": folder / "laws.json"}
    plan.run(config, **files, out=out)
    return read_plan(out)


def work_of(folder: Path, described: Plan, run: Path) -> Work:
    config = PretrainConfig.model_validate_json(json.dumps({"init_from": str(folder / "llama"), "warmup_steps": 2}))
    return Work(
        config=config,
        plan=described,
        tokens=folder / "tokens",
        tokenizer=folder / "tokenizer",
        run=run,
        training_ends_at=None,
        threads=1,
    )


def test_the_tokenizer_is_adopted_and_lacks_nothing(folder: Path) -> None:
    special = SpecialTokens.read(folder / "tokenizer")
    assert special.end_of_text == END
    new = [special.fim_prefix, special.fim_middle, special.fim_suffix, special.pad, special.user, special.end]
    assert all(each is not None and each >= KNOWN_TOKENS for each in new)
    codec, text = TextCodec(folder / "tokenizer"), "def decode(self, s):\n    return None\n"
    theirs = AutoTokenizer.from_pretrained(folder / "llama", local_files_only=True)
    assert codec.encode(text) == theirs(text, add_special_tokens=False).input_ids
    ours = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    assert (ours.eos_token_id, len(ours)) == (END, codec.vocabulary_size)
    chat = [{"role": "user", "content": text}]
    rendered = ours.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert list(rendered) == chat_prompt(codec, chat)  # type: ignore[arg-type]
    assert chat_prompt(codec, chat) == prompt_tokens(codec.encode(text), special=special)  # type: ignore[arg-type]
    assert fim_prompt(codec, "a", "b")[0] == special.fim_prefix
    store = TokenStore(folder / "tokens", "validation")
    assert {int(store.document(row)[-1]) for row in range(store.num_documents)} == {END}


def test_a_run_begins_at_the_checkpoints_own_loss_and_gets_better(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, margins: Margins
) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    described = planned(folder, tmp_path / "plan")
    work = work_of(folder, described, tmp_path / "run")
    assert pretrain.check_initial(work.config, artifact.read(folder / "tokenizer"), described).init_from
    special = SpecialTokens.read(folder / "tokenizer")
    model = model_of(work, special)
    assert described.shape.parameters == sum(each.numel() for each in model.parameters())
    assert described.shape.vocabulary_size == special_size(folder) > ROWS
    validation = Validation(work, 10**9, "cpu")
    before = validation(model)
    # The independent oracle: transformers alone, on the checkpoint's own files, its own 404 rows.
    theirs = AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32, local_files_only=True)
    alone = nats(theirs.eval(), validation.documents, CONTEXT, END, "cpu") / np.log(2) / validation.num_bytes
    # The rows of new tokens take a little probability from the known ones: twelve average tokens' worth.
    assert alone <= before
    margins.error("what new rows cost", before / alone - 1, most=0.03)
    chance = float(np.log2(ROWS)) * sum(map(len, validation.documents)) / validation.num_bytes
    margins.effect("below chance", 1 - before / chance, least=0.2)
    try:
        figures = train_worker(work, World(), report=lambda _: None, agree=lambda value: value)
    finally:
        torch.use_deterministic_algorithms(False)
    margins.effect("fall of bits per byte", before - figures["validation_bits_per_byte"], least=0.01)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "export", dtype=torch.float32)
    assert exported.generation_config.eos_token_id == END
    again = validation(exported.eval())
    margins.error("exported", abs(again / figures["validation_bits_per_byte"] - 1), most=1e-4)
    assert engine_for(tmp_path / "run" / "export") == "ctranslate2"


def special_size(folder: Path) -> int:
    return TextCodec(folder / "tokenizer").vocabulary_size


@pytest.mark.drill
def test_the_stage_goes_on_from_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "OVERNIGHT_STATE": str(tmp_path / "state"), "OVERNIGHT_RAY_NUM_CPUS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
        planned(folder, tmp_path / "plan", fixed={"steps": 10})
    config = {"init_from": str(folder / "llama"), "warmup_steps": 2, "report_every_steps": 5}
    (tmp_path / "params.yaml").write_text(json.dumps({"pretrain": config}))
    paths = {"tokens": folder / "tokens", "tokenizer": folder / "tokenizer", "plan": tmp_path / "plan"}
    options = [f"--{name}={path}" for name, path in {**paths, "params": tmp_path / "params.yaml"}.items()]
    command = [sys.executable, "-m", pretrain.__name__, *options, f"--out={tmp_path / 'base'}"]
    environ.pop("OVERNIGHT_CYCLE", None)
    done = subprocess.run(command, env=environ, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = artifact.read(tmp_path / "base")
    assert manifest.statistics["steps"] == 10
    # Where the checkpoint lies is no part of what the model is.
    assert str(folder) not in (tmp_path / "base" / "manifest.json").read_text()
    codec = TextCodec(tmp_path / "base")
    engine = open_engine(tmp_path / "base", cache=tmp_path)
    found = engine.score([completion_prompt(codec, "def decode(self, s):")])
    assert np.isfinite(found[0]).all()


@pytest.mark.parametrize("scaling", ["yarn", "linear"])
def test_a_longer_context_scales_rotary_positions(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scaling: str
) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    described = planned(folder, tmp_path / "plan", sequence_length=2 * CONTEXT, rope_scaling=scaling)
    assert (described.rope_scaling, described.shape.context) == (scaling, 2 * CONTEXT)
    model = model_of(work_of(folder, described, tmp_path / "run"), SpecialTokens.read(folder / "tokenizer"))
    model.save_pretrained(tmp_path / "export")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    assert read.config.max_position_embeddings == 2 * CONTEXT
    assert (read.config.rope_parameters["rope_type"], read.config.rope_parameters["factor"]) == (scaling, 2.0)
    theirs = AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32, local_files_only=True)
    frequencies = read.model.rotary_emb.inv_freq / theirs.model.rotary_emb.inv_freq
    assert frequencies.min() == pytest.approx(0.5)  # the slowest turn half as fast, so that twice the tokens fit
    assert scaling == "yarn" or frequencies.max() == pytest.approx(0.5)
    ids = torch.arange(2 * CONTEXT)[None] % KNOWN_TOKENS
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, model.eval()(ids).logits)
    assert engine_for(tmp_path / "export") == "transformers"


def test_new_rows_lie_about_the_mean_of_the_known_ones_each_at_its_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    described = planned(folder, tmp_path / "plan")
    model = model_of(work_of(folder, described, tmp_path / "run"), SpecialTokens.read(folder / "tokenizer"))
    theirs = AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32, local_files_only=True)
    for ours, known in (
        (model.get_input_embeddings().weight.detach(), theirs.get_input_embeddings().weight.detach()),
        (model.get_output_embeddings().weight.detach(), theirs.get_output_embeddings().weight.detach()),
    ):
        assert torch.equal(ours[:KNOWN_TOKENS], known[:KNOWN_TOKENS])
        away = (ours[KNOWN_TOKENS:] - known[:KNOWN_TOKENS].mean(dim=0)) / known[:KNOWN_TOKENS].std(dim=0)
        assert 0.4 < float(away.std()) < 0.6 and abs(float(away.mean())) < 0.1
        assert float(torch.pdist(away).min()) > 0.5 * away.shape[1] ** 0.5, "two new tokens are told apart"


def test_what_does_not_belong_together_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    described, tokenizer = planned(folder, tmp_path / "plan"), artifact.read(folder / "tokenizer")
    with pytest.raises(
        DataError, match=r"the tokenizer is that of a llama, pretrain\.init_from is null; run `overnight"
    ):
        pretrain.check_initial(PretrainConfig(), tokenizer, described)
    other = write_checkpoint(tmp_path / "other", steps=1)
    with pytest.raises(DataError, match=r"other has digest \w{64}, the tokenizer was made for \w{64}"):
        pretrain.check_initial(PretrainConfig(init_from=str(other)), tokenizer, described)
    with pytest.raises(DataError, match=r"the tokenizer was not adopted from it"):
        bare = tokenizer.model_copy(update={"statistics": {}})
        pretrain.check_initial(PretrainConfig(init_from=str(other)), bare, described)


def test_learned_positions_cannot_be_stretched(tmp_path: Path) -> None:
    found = adoption.read_initial(write_checkpoint(tmp_path / "gpt2", "gpt2", steps=1))
    assert (found.model_type, found.positions, found.tied, found.context) == ("gpt2", "learned", True, CONTEXT)
    shape = plan.shape_for(PlanConfig(sequence_length=CONTEXT), PlanConfig().ladder[0], 0, found)
    model = continued.load(tmp_path / "gpt2", shape, known_tokens=402, tokens=402, end_of_text=401, rope_scaling=None)
    assert shape.parameters == sum(each.numel() for each in model.parameters())
    with pytest.raises(
        ConfigError, match=r"plan\.sequence_length is 128, .* context is 64 .* learned, which cannot be"
    ):
        plan.shape_for(PlanConfig(sequence_length=2 * CONTEXT), PlanConfig().ladder[0], 0, found)


def without(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def with_config(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | changes))

    return change


def pickled(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")  # runs if it is ever unpickled


def truncated(path: Path) -> None:
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(b"\xff" * 8 + content[8:64])


def without_end(path: Path) -> None:
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|gone|>"}))


def without_weight(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        weights = load_file(path / "model.safetensors")
        del weights[name]
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})

    return change


def with_layer(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    again = {name.replace("layers.1", "layers.2"): each.clone() for name, each in weights.items() if "layers.1" in name}
    save_file(weights | again, path / "model.safetensors", metadata={"format": "pt"})


def adapter(path: Path) -> None:
    """As PEFT saves one: no model, but the name of one."""
    (path / "config.json").unlink()
    (path / "model.safetensors").rename(path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "other"}))


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (without("config.json"), r"config\.json: cannot be read as JSON: .*needs a directory of Hugging Face's form"),
    (without("tokenizer.json"), r"tokenizer\.json: cannot be read as a tokenizer: .* save it beside the weights"),
    (without_end, r"no token ends a text: found eos_token '<\|gone\|>', needed one among the added_tokens"),
    (pickled, r"found pytorch_model\.bin, a pickle, which is never loaded; needed model\.safetensors"),
    (adapter, r"broken: found a LoRA adapter \(adapter_config\.json\), needed a whole model: merge it first"),
    (truncated, r"model\.safetensors: not safetensors: .*; copy the checkpoint again"),
    (with_config(model_type="llamoid"), r"transformers has no model_type llamoid"),
    (with_config(architectures=["BertForMaskedLM"]), r"found BertForMaskedLM, needed a decoder"),
    (with_config(is_encoder_decoder=True), r"needed a decoder"),
    (
        with_config(vocab_size=500),
        r"says vocab_size 500, model\.embed_tokens\.weight has 404 rows and the tokenizer ids",
    ),
    (with_config(auto_map={"AutoModel": "code.Model"}), r"needs code of its own \(auto_map\), which is never run"),
    (with_config(quantization_config={"bits": 4}), r"the weights are quantized"),
    (with_config(transformers_weights="other.safetensors"), r"names 'other\.safetensors' as its weights"),
    (with_config(num_hidden_layers=10**9), r"num_hidden_layers is 1000000000, needed at most 4096"),
    (with_config(num_hidden_layers=3), r"9 weights of the model are not there, as model\.layers\.2\."),
    (with_layer, r"9 weights are of no part of the model that config\.json describes, as model\.layers\.2\."),
    (with_config(num_key_value_heads=2), r"transformers cannot load it as a decoder: "),
    (with_config(head_dim=64), r"transformers cannot load it as a decoder: "),
    (with_config(hidden_act="shout"), r"transformers cannot load it as a decoder: "),
    (without_weight("lm_head.weight"), r"1 weights of the model are not there, as lm_head\.weight"),
    (lambda path: (path / "config.json").write_text("[" * 10**5), r"config\.json: cannot be read as JSON: .*recursion"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Copies of a checkpoint, to be broken."""
    source = write_checkpoint(tmp_path_factory.mktemp("whole") / "llama", steps=1)

    def copy(out: Path) -> Path:
        out.mkdir()
        for path in source.iterdir():
            (out / path.name).write_bytes(path.read_bytes())
        return out

    return copy


@pytest.mark.parametrize(("breaks", "message"), BROKEN)
def test_a_broken_checkpoint_is_refused_in_one_line(
    breaks: Callable[[Path], None], message: str, checkpoint: Callable[[Path], Path], tmp_path: Path
) -> None:
    broken = checkpoint(tmp_path / "broken")
    breaks(broken)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        adoption.read_initial(broken)
        adoption.adopt(broken, tmp_path / "out", 0)
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def loss_of(directory: Path) -> float:
    """By transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()
    ids = torch.arange(CONTEXT)[None] % KNOWN_TOKENS
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


def stored_output(scale: float, *, tied: bool = True) -> Callable[[Path], None]:
    """Say that the embeddings are one, and store both: equal for a scale of 1."""

    def change(path: Path) -> None:
        with_config(tie_word_embeddings=tied)(path)
        weights = load_file(path / "model.safetensors")
        weights["lm_head.weight"] = scale * weights["model.embed_tokens.weight"].clone()
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})

    return change


def consolidated(path: Path) -> None:
    """The same model once more, under other names, as Mistral's folders have it."""
    weights = load_file(path / "model.safetensors")
    save_file({f"other.{name}": each for name, each in weights.items()}, path / "consolidated.safetensors")


def sharded(path: Path) -> None:
    """In shards with an index, beside a model.safetensors of a smaller model that nobody names."""
    weights = load_file(path / "model.safetensors")
    weight_map = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(sorted(weights))}
    for file in set(weight_map.values()):
        part = {name: each for name, each in weights.items() if weight_map[name] == file}
        save_file(part, path / file, metadata={"format": "pt"})
    save_file({"x": torch.zeros(3)}, path / "model.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("change", "tied"),
    [
        (stored_output(1.0), True),
        (stored_output(0.5), False),
        (stored_output(1.0, tied=False), False),
        (consolidated, False),
        (sharded, False),
    ],
    ids=["tied, stored twice", "said to be tied, stored apart", "apart, stored equal", "two sets", "shards"],
)
def test_what_is_planned_is_what_trains_and_is_read_back(
    change: Callable[[Path], None], tied: bool, checkpoint: Callable[[Path], Path], folder: Path, tmp_path: Path
) -> None:
    theirs = checkpoint(tmp_path / "theirs")
    change(theirs)
    found = adoption.read_initial(theirs)
    assert found.tied is tied
    (tmp_path / "own").mkdir()
    size = adoption.adopt(theirs, tmp_path / "own", 0)[1]
    initial = found.model_copy(update={"vocabulary_size": size})
    described = Plan.model_validate(
        plan.plan_fixed(
            PlanConfig.model_validate_json(
                json.dumps({"mode": "fixed", "sequence_length": CONTEXT, "fixed": {"steps": 2}})
            ),
            size,
            initial,
        ).model_dump()
    )
    work = work_of(folder, described, tmp_path / "run")
    config = work.config.model_copy(update={"init_from": str(theirs)})
    work = work.model_copy(update={"tokenizer": tmp_path / "own", "config": config})
    try:
        figures = train_worker(work, World(), report=lambda _: None, agree=lambda value: value)
    finally:
        torch.use_deterministic_algorithms(False)
    export = tmp_path / "run" / "export"
    exported = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32).eval()
    assert sum(each.numel() for each in exported.parameters()) == described.shape.parameters
    assert exported.config.tie_word_embeddings is tied
    measured = Validation(work, 10**9, "cpu")(exported)
    assert measured == pytest.approx(figures["validation_bits_per_byte"], rel=1e-4)
    (tmp_path / "export").mkdir()
    for path in (*export.glob("*.json"), *export.glob("*.safetensors"), *(tmp_path / "own").iterdir()):
        (tmp_path / "export" / path.name).write_bytes(path.read_bytes())
    codec = TextCodec(tmp_path / "export")
    prompt = [completion_prompt(codec, "def decode(self, s):")]
    scores = [open_engine(tmp_path / "export", name, cache=tmp_path).score(prompt)[0] for name in CLASSES]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-3)


def test_two_different_embeddings_are_loaded_as_transformers_loads_them(
    checkpoint: Callable[[Path], Path], tmp_path: Path
) -> None:
    theirs = checkpoint(tmp_path / "theirs")
    stored_output(0.5)(theirs)
    found = adoption.read_initial(theirs)
    shape = plan.shape_for(PlanConfig(sequence_length=CONTEXT), PlanConfig().ladder[0], 0, found)
    model = continued.load(theirs, shape, known_tokens=402, tokens=402, end_of_text=401, rope_scaling=None).eval()
    ids = torch.arange(CONTEXT)[None] % KNOWN_TOKENS
    with torch.no_grad():
        assert float(model(input_ids=ids, labels=ids).loss) == pytest.approx(loss_of(theirs), rel=1e-5)


def test_a_checkpoint_that_lacks_a_weight_is_refused(checkpoint: Callable[[Path], Path], tmp_path: Path) -> None:
    broken = checkpoint(tmp_path / "broken")
    found = adoption.read_initial(broken)
    without_weight("model.norm.weight")(broken)
    shape = plan.shape_for(PlanConfig(sequence_length=CONTEXT), PlanConfig().ladder[0], 0, found)
    with pytest.raises(
        continued.CheckpointError, match=r"1 weights of the model are not there, as model\.norm\.weight"
    ):
        continued.load(broken, shape, known_tokens=402, tokens=402, end_of_text=401, rope_scaling=None)


def test_a_model_of_another_size_than_was_planned_is_refused(
    checkpoint: Callable[[Path], Path], tmp_path: Path
) -> None:
    theirs = checkpoint(tmp_path / "theirs")
    found = adoption.read_initial(theirs)
    found = found.model_copy(update={"total": found.total + 1})
    shape = plan.shape_for(PlanConfig(sequence_length=CONTEXT), PlanConfig().ladder[0], 0, found)
    with pytest.raises(continued.CheckpointError, match=r"[\d,]+ parameters were planned, the model has [\d,]+; run"):
        continued.load(theirs, shape, known_tokens=402, tokens=402, end_of_text=401, rope_scaling=None)


def test_the_cycle_sees_another_checkpoint(checkpoint: Callable[[Path], Path], tmp_path: Path) -> None:
    out, directory = tmp_path / "state" / "initial.json", checkpoint(tmp_path / "llama")
    adoption.write_initial_path(None, out)
    assert adoption.read_initial_path(out) is None
    nothing = out.read_bytes()
    adoption.write_initial_path(str(directory), out)
    one, written = out.read_bytes(), out.stat().st_mtime_ns
    assert one != nothing
    assert adoption.read_initial_path(out) == directory
    adoption.write_initial_path(str(directory), out)
    assert out.stat().st_mtime_ns == written, "an equal file is left alone"
    with_config(extra=1)(directory)
    adoption.write_initial_path(str(directory), out)
    assert out.read_bytes() != one
    pickled(directory)
    with pytest.raises(DataError, match="a pickle"):
        adoption.write_initial_path(str(directory), out)
