"""Fine-tuning an encoder-decoder: answers of the decoder to what the encoder reads, replayed denoising, and a guard."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from components.alignment import sft
from components.alignment.examples.exchanges import exchanges_of, two_sided
from components.alignment.examples.packing import PackedRows, order_of
from components.alignment.objectives import tuning
from components.alignment.objectives.engine_tuning import recipe_of, tune
from components.alignment.objectives.tuned_weights import open_model
from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig
from components.core.errors import ArtifactError, DataError
from components.core.events import Events
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec
from components.training.engine.batches.batch import IGNORED
from components.training.engine.model.architectures import build
from components.training.engine.model.loss import mean_nats
from components.training.engine.model.shape import Architecture
from components.training.parameters.objectives import ObjectivesConfig
from tests.alignment.objectives.test_tuned_weights import DENOISING, base, small, steps
from tests.alignment.stages import SFT, SFT_READS
from tests.margins import Margins

pytestmark = pytest.mark.numeric
CONFIG = SFT.model_copy(update={"row_tokens": 128, "batch_rows": 4, "micro_batch_rows": 4, "max_steps": 4})


class Pretrained(StepConfig):
    """What the stage reads of a base's parameters."""

    objectives: ObjectivesConfig = DENOISING


def pretrained(world: Path, folder: Path, architecture: Architecture) -> Path:
    """An artifact as pretraining leaves one."""
    made = base(world, folder / "made", architecture)
    with artifact.create(
        folder / "base", stage="base", config=Pretrained(), inputs=[], code=Path(artifact.__file__)
    ) as draft:
        for path in made.iterdir():
            (draft.path / path.name).write_bytes(path.read_bytes())
    return folder / "base"


@pytest.fixture(scope="module")
def tuned(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("t5")
    paths = {name: world / name for name in SFT_READS} | {"base": pretrained(world, folder, "t5")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(folder / "state"))
        return folder / "sft", sft.run(CONFIG, **paths, out=folder / "sft")


def test_the_stage_tunes_guards_and_saves(tuned: tuple[Path, Manifest]) -> None:
    out, manifest = tuned
    figures = manifest.statistics
    assert figures["kept"] == "tuned" and figures["steps"] == 4 and figures["replayed_share"] == 0.25
    assert figures["heldout_loss_after"] < figures["heldout_loss_before"]
    assert figures["text_nats_before"] > 0 and "infilling_nats_before" not in figures, "what the kind can do"
    assert 0 <= figures["padding_share"] < 0.1
    model = AutoModelForSeq2SeqLM.from_pretrained(out, dtype=torch.float32, local_files_only=True)
    special = TextCodec(out).special
    assert model.generation_config.decoder_start_token_id == special.filler
    assert special.end in model.generation_config.eos_token_id


def test_what_follows_says_in_one_line_that_it_takes_no_encoder_decoder(tuned: tuple[Path, Manifest]) -> None:
    for opens in (open_engine, tuning.load_model):
        with pytest.raises(ArtifactError, match=r"is no decoder, so .* no stage after sft takes it.* --until sft"):
            opens(tuned[0])


def test_a_tuned_model_says_what_it_learned(world: Path, tmp_path: Path, functions: dict[str, sft.Instruction]) -> None:
    """Through transformers' own generation, which begins, reads and stops as the files say."""
    directory, out = base(world, tmp_path / "base", "t5"), tmp_path / "out"
    codec = TextCodec(directory)
    config = CONFIG.model_copy(
        update={"max_steps": 80, "batch_rows": 1, "micro_batch_rows": 1, "row_tokens": 32, "adamw_matrix": 1e-2}
    )
    learned = sft.encode(functions["root_apples"], codec)
    reads = sft.batches_of(config, [learned], {}, world / "tokens", codec, "t5", DENOISING)
    model = open_model(config, directory)
    (tmp_path / "run").mkdir()
    tune(model, reads, config, steps(config), tmp_path / "run", Events("x"))
    out.mkdir()
    tuning.save_model(model, directory, out)
    again = AutoModelForSeq2SeqLM.from_pretrained(out, dtype=torch.float32, local_files_only=True)
    (exchange,) = exchanges_of(learned)
    written = again.generate(torch.from_numpy(exchange.prompt)[None].long(), max_new_tokens=64, do_sample=False)
    assert written[0].tolist() == [codec.special.filler, *exchange.answer.tolist()]


def test_exchanges_of_a_row_do_not_see_each_other(world: Path, tmp_path: Path, margins: Margins) -> None:
    directory = base(world, tmp_path / "base", "t5")
    codec = TextCodec(directory)
    lessons = sft.read_lessons(CONFIG, world / "instructions", codec)
    every = [each for encoded in lessons.conversations for each in exchanges_of(encoded)]
    rows = sft.rows_of(CONFIG, lessons.conversations, {}, codec, "t5")
    members = rows.members(0)
    assert len(members) > 1
    model = tuning.load_model(directory, "encoder-decoder")
    together = mean_nats(model, [rows.batch([0])])
    alone = mean_nats(model, [two_sided([[every[each]] for each in members], 128, 128, codec.special.filler)])
    margins.close("nats", torch.tensor(together), torch.tensor(alone), rtol=1e-5, atol=1e-6)


def test_an_encoder_is_refused_in_one_line(tmp_path: Path) -> None:
    directory = tmp_path / "modernbert"
    build(small("modernbert"), 0, 0).save_pretrained(directory)
    with pytest.raises(
        DataError, match=r"modernbert is an encoder, which answers nothing; name labelled texts in sft.cl"
    ):
        tuning.require_answers(directory)


def test_where_a_state_runs_on_every_conversation_has_a_row_of_its_own(world: Path, margins: Margins) -> None:
    """A hybrid's row says of its conversation what the conversation says alone."""
    codec = TextCodec(world / "base")
    lessons = sft.read_lessons(SFT, world / "instructions", codec)
    rows = sft.rows_of(SFT, lessons.conversations, {}, codec, "bamba")
    assert isinstance(rows, PackedRows) and all(len(rows.members(row)) == 1 for row in range(20))
    assert rows.rows_of_epoch() == len(lessons.conversations)
    model = build(small("bamba"), 0, 0).eval()
    batch = rows.batch([3])
    size = lessons.conversations[rows.members(3)[0]].positions
    short = replace(batch, **{name: getattr(batch, name)[:, :size] for name in ("inputs", "labels", "positions")})
    assert (batch.labels[:, size:] == IGNORED).all()
    nats = torch.tensor(mean_nats(model, [batch])), torch.tensor(mean_nats(model, [short]))
    margins.close("nats", *nats, rtol=1e-5, atol=1e-6)
    assert not recipe_of(SFT, compiled=False, recurrent=True).isolate_documents
    assert recipe_of(SFT, compiled=False).isolate_documents


def test_an_item_alone_in_its_row_comes_once_in_an_epoch(world: Path) -> None:
    conversations = [replace(each, source="a") for each in _conversations(world)[:40]]
    rows = PackedRows(conversations, order_of(["a"] * 40, {}, 0), 256, 4, alone=True)
    assert sorted(np.concatenate([rows.members(row) for row in range(40)]).tolist()) == list(range(40))


def _conversations(world: Path) -> list[sft.Conversation]:
    return sft.read_lessons(SFT, world / "instructions", TextCodec(world / "base")).conversations
