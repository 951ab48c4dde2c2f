"""An encoder becomes a classifier that transformers opens and the safety suites can ask."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from components.alignment import sft
from components.alignment.classification import classifier
from components.alignment.classification.labelled import Labelled
from components.alignment.config import ClassifyConfig, SftConfig
from components.alignment.objectives import tuning
from components.alignment.objectives.engine_tuning import tune
from components.core.artifact import Manifest
from components.core.errors import ArtifactError, ConfigError, DataError
from components.core.events import Events
from components.evaluation.safety.classifier import ClassifierJudge
from components.evaluation.safety.prompts import Exchange, Prompt
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec
from components.training.engine.model.architectures import build
from components.training.engine.model.classification import ClassificationLoss
from tests.alignment.objectives.test_tuned_weights import small, steps
from tests.alignment.stages import SFT, SFT_READS
from tests.margins import Margins

pytestmark = pytest.mark.numeric
SAID = {"refused": "I will not do that, sorry", "complied": "def scale(a, factor)", "evaded": "counting the apples"}
TEXTS = [
    {"text": f"Write {noun} {number}.", "answer": f"{answer} {noun} {number}", "label": label}
    for noun in ("apples", "birds", "cars", "dogs")
    for number in range(12)
    for label, answer in SAID.items()
]


def encoder(world: Path, folder: Path) -> Path:
    """A random encoder with the world's tokenizer, as the artifact of a base."""
    build(small("modernbert"), 0, 0).save_pretrained(folder)
    tuning.copy_tokenizer(world / "base", folder)
    return folder


def configured(folder: Path, **changes: object) -> SftConfig:
    path = folder / "labelled.jsonl"
    path.write_text("\n".join(map(json.dumps, TEXTS)))
    values = {"classify": ClassifyConfig(files=(str(path),)), "max_steps": 40, "batch_rows": 12, "micro_batch_rows": 12}
    return SFT.model_copy(update=values | changes)


@pytest.fixture(scope="module")
def trained(
    world: Path, tmp_path_factory: pytest.TempPathFactory, artifact_writer: sft.Any
) -> tuple[Path, Manifest, SftConfig]:
    folder = tmp_path_factory.mktemp("classifier")
    made = encoder(world, folder / "made")
    base = artifact_writer(folder, "base", {path.name: path.read_bytes() for path in made.iterdir()})
    config = configured(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(folder / "state"))
        paths = {name: world / name for name in SFT_READS} | {"base": base}
        return folder / "sft", sft.run(config, **paths, out=folder / "sft"), config


def test_the_stage_says_how_good_its_classifier_is(trained: tuple[Path, Manifest, SftConfig]) -> None:
    out, manifest, config = trained
    figures = manifest.statistics
    assert figures["labels"] == ["complied", "evaded", "refused"] and not figures["several_labels"]
    assert figures["learned"] + figures["heldout"] == len(TEXTS) and figures["heldout"] % 3 == 0, "prompts stay whole"
    for name in ("accuracy", "macro_f1", "calibration_error"):
        assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]
    assert figures["accuracy"]["value"] > 0.8 and figures["accuracy"]["n"] == figures["heldout"]
    assert [*figures["files"]] == [*config.classify.files] and set(config.named_files) > set(config.classify.files)
    assert pl.read_parquet(out / "instructions.parquet").height == 0
    assert pl.read_csv(out / "history.csv")["loss"][-1] < pl.read_csv(out / "history.csv")["loss"][0]


def test_transformers_opens_it_and_reads_texts_as_they_were_learned(
    world: Path, trained: tuple[Path, Manifest, SftConfig]
) -> None:
    out = trained[0]
    codec, tokenizer = TextCodec(world / "base"), AutoTokenizer.from_pretrained(out, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32, local_files_only=True).eval()
    for text, answer in (("Write code.", "no <|end|> of it"), ("alone<|endoftext|>", None)):
        pair = (text,) if answer is None else (text, answer)
        inputs = tokenizer(*pair, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == classifier.encode(
            Labelled(text=text, answer=answer, labels=()), codec
        )
        assert torch.isfinite(model(**inputs).logits).all()
    assert {*model.config.label2id} == {*SAID} and model.config.problem_type == "single_label_classification"


def test_the_safety_suites_can_ask_it(trained: tuple[Path, Manifest, SftConfig], margins: Margins) -> None:
    """Its labels there are those that it was measured by here."""
    out, manifest, config = trained
    codec = TextCodec(out)
    held = [each for each in TEXTS if classifier._point(each["text"]) < config.classify.heldout_fraction]
    exchanges = [
        Exchange(prompt=Prompt(id="x", category="x", text=each["text"], signs=("zzz",)), answer=each["answer"])
        for each in held
    ]
    labels = ClassifierJudge(out).judge(exchanges)
    accuracy = np.mean([label == each["label"] for label, each in zip(labels, held, strict=True)])
    assert accuracy == pytest.approx(manifest.statistics["accuracy"]["value"])
    assert codec.special.end_of_text == 0, "the tokenizer is still one of ours"


def test_a_run_goes_on_only_with_the_texts_that_it_began_with(
    world: Path, tmp_path: Path, artifact_writer: sft.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoints of a run that ended early lie under a key of its files' content."""
    made = encoder(world, tmp_path / "made")
    base = artifact_writer(tmp_path, "base", {path.name: path.read_bytes() for path in made.iterdir()})
    config, keys = configured(tmp_path), []

    def stop(*given: sft.Any) -> None:
        keys.append(given[4])
        raise KeyboardInterrupt

    monkeypatch.setattr(sft, "train_classifier", stop)
    for texts in (TEXTS, TEXTS, TEXTS[3:]):
        Path(config.classify.files[0]).write_text("\n".join(map(json.dumps, texts)))
        with pytest.raises(KeyboardInterrupt):
            sft.classify(config, config.classify, base, world / "plan", tmp_path / "out")
    assert keys[0] == keys[1] != keys[2]


def test_nothing_else_takes_a_classifier(trained: tuple[Path, Manifest, SftConfig], world: Path) -> None:
    with pytest.raises(ArtifactError, match="is no decoder, so no engine serves it"):
        open_engine(trained[0])
    with pytest.raises(DataError, match=r"sft\.classify needs an encoder, found llama"):
        tuning.require_encoder(world / "base")


@pytest.mark.parametrize(
    ("mode", "moves"),
    [
        ("full", ("",)),
        ("last_layers", ("head.", "classifier.", "model.layers.1.", "model.final_norm.")),
        ("head", ("head.", "classifier.")),
    ],
)
def test_a_step_moves_what_is_tuned_and_nothing_else(
    world: Path, tmp_path: Path, mode: str, moves: tuple[str, ...]
) -> None:
    base, config = encoder(world, tmp_path / "base"), configured(tmp_path, tune=mode, layers=1, max_steps=2)
    task = classifier.task_of(config, config.classify, TextCodec(base))
    model = classifier.open_classifier(config, base, task.read)
    with torch.no_grad():  # what pretraining begins with at zero would let no gradient through
        for each in model.parameters():
            each.add_(0.02 * torch.randn_like(each))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    (tmp_path / "run").mkdir()
    draws = classifier.Draws(split=task.learned, batch_rows=12, seed=0)
    tune(model, draws, config, steps(config), tmp_path / "run", Events("x"), loss=ClassificationLoss(model))
    moved = {name for name, each in model.state_dict().items() if not torch.equal(each, before[name])}
    assert moved == {name for name in before if name.startswith(moves)}


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_is_that_of_transformers(world: Path, tmp_path: Path, margins: Margins, several: bool) -> None:
    """Divided by the labels, whatever fills up the shorter texts."""
    base, config = encoder(world, tmp_path / "base"), configured(tmp_path)
    task = classifier.task_of(config, config.classify, TextCodec(base))
    read = replace(task.read, several=several)
    model = classifier.open_classifier(config, base, read).eval()
    split = replace(task.learned, targets=read.targets(task.read.texts)[: len(task.learned.rows)])
    batch = split.batch(range(7))
    arrays = {name: torch.from_numpy(getattr(batch, name)) for name in ("inputs", "labels", "positions")}
    total, auxiliary, nats = ClassificationLoss(model)(**arrays)
    alone = []
    for number in range(7):
        label = torch.from_numpy(split.targets[number])
        ids = torch.tensor([split.rows[number]])
        alone.append(model(input_ids=ids, labels=label[None].float() if several else label).loss)
    margins.close("loss", total / batch.num_labels, torch.stack(alone).mean(), rtol=1e-4, atol=1e-6)
    assert float(auxiliary) == 0 and nats.shape == (7,) and not nats.requires_grad


def test_what_a_classifier_cannot_be_is_one_line(world: Path, tmp_path: Path) -> None:
    base, config = encoder(world, tmp_path / "base"), configured(tmp_path, tune="lora")
    task = classifier.task_of(config, config.classify, TextCodec(base))
    with pytest.raises(ConfigError, match=r"sft\.tune is lora: a classifier takes full, last_layers, head"):
        classifier.open_classifier(config, base, task.read)
    with pytest.raises(ConfigError, match=r"sft\.layers is 3, the model has 2 blocks"):
        classifier.open_classifier(configured(tmp_path, tune="last_layers", layers=3), base, task.read)
    with pytest.raises(DataError, match=r"are longer than sft\.row_tokens of 16"):
        classifier.task_of(configured(tmp_path, row_tokens=16), config.classify, TextCodec(base))
    lonely = config.classify.model_copy(update={"heldout_fraction": 1e-9})
    with pytest.raises(DataError, match=r"144 texts give 144 to learn from and 0 to measure on"):
        classifier.task_of(config, lonely, TextCodec(base))
