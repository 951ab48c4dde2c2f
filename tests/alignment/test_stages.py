"""The three stages one after the other on a tiny random model: real TRL steps, real sampling, real programs."""

import json
import math
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import polars as pl
import psutil
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.alignment import align, sft
from components.alignment.config import AlignConfig, PairsLoss, SftConfig
from components.alignment.examples.chat import prompt_tokens, stop_ids
from components.alignment.objectives import engine_tuning, tuning
from components.alignment.objectives.anchored_loss import loss_of
from components.alignment.objectives.dpo import encoded, measure, optimize, read_pairs, sampling_gap
from components.core.artifact import Manifest
from components.core.errors import ArtifactError, ConfigError, DataError
from components.core.events import Events
from components.deadline import budget
from components.deadline.budget import Budget
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import END_ID, OURS, USER_ID
from components.training.engine import loop
from components.training.engine.devices import cores
from tests.alignment.stages import ALIGN, PREFERENCES, SFT, SFT_READS, run_preferences, run_sft
from tests.margins import Margins

pytestmark = pytest.mark.numeric


def test_sft_lowers_the_loss_on_functions_it_never_saw(stages: dict[str, Manifest], margins: Margins) -> None:
    figures = stages["sft"].statistics
    assert figures["steps"] == 20
    margins.effect("fall of the loss", figures["heldout_loss_before"] - figures["heldout_loss_after"], least=0.1)


@pytest.mark.parametrize("name", ["sft", "aligned"])
def test_a_model_is_a_directory_that_transformers_loads(world: Path, stages: dict[str, Manifest], name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(world / name, dtype=torch.float32)
    assert set(model.generation_config.eos_token_id) == set(stop_ids())
    tokenizer = AutoTokenizer.from_pretrained(world / name)
    assert tokenizer.convert_tokens_to_ids("<|user|>") == USER_ID
    header = (world / name / "history.csv").read_text().splitlines()[0]
    assert header.startswith("step,tokens,loss,learning_rate")


def test_no_file_is_a_pickle_or_an_archive(world: Path, stages: dict[str, Manifest]) -> None:
    for name in stages:
        for path in (world / name).rglob("*"):
            content = path.read_bytes()
            assert not zipfile.is_zipfile(path), path
            assert not content.startswith(b"\x80"), path
            assert path.suffix in {".json", ".safetensors", ".csv", ".parquet", ".jinja"}, path


def test_equal_inputs_and_seed_give_equal_digests(world: Path, stages: dict[str, Manifest], tmp_path: Path) -> None:
    assert run_sft(world, tmp_path / "sft").digest == stages["sft"].digest
    assert run_preferences(world, tmp_path / "preferences").digest == stages["preferences"].digest


def test_candidates_and_pairs_fit_together(world: Path, stages: dict[str, Manifest]) -> None:
    candidates = pl.read_parquet(world / "preferences" / "candidates.parquet")
    pairs = pl.read_parquet(world / "preferences" / "preferences.parquet")
    assert candidates.height == stages["preferences"].statistics["candidates"] > 24
    assert candidates.select("prompt", "answer").is_duplicated().sum() == 0
    for prompt, chosen, rejected in pairs.select("prompt", "chosen", "rejected").iter_rows():
        answers = set(candidates.filter(pl.col("prompt") == prompt)["answer"])
        assert {chosen, rejected} <= answers
    learned = pl.read_parquet(world / "sft" / "instructions.parquet")
    both = candidates.join(learned, on="prompt")
    assert both.height == 0, "no prompt was learned from in sft"


def test_pairs_carry_the_sampled_ids_and_whole_answers_are_preferred(
    world: Path, stages: dict[str, Manifest], margins: Margins
) -> None:
    codec = TextCodec(world / "sft")
    pairs = pl.read_parquet(world / "preferences" / "preferences.parquet")
    assert pairs.height > 4
    assert set(pairs["chosen_finish"]) == {"stop"} and pairs["rejected_finish"].is_in(["stop", "length"]).all()
    for row in pairs.iter_rows(named=True):
        assert row["prompt_ids"] == prompt_tokens(codec.encode(row["prompt"]))
        for side in ("chosen", "rejected"):
            ids, ended = row[f"{side}_ids"], row[f"{side}_finish"] == "stop"
            assert (ids[-1] in stop_ids()) == ended, "a stop token stands only where one was sampled"
            assert codec.decode(ids[:-1] if ended else ids) == row[side]
    assert set(pairs["chosen_checkpoint"]) == {stages["sft"].digest}
    assert set(pairs["chosen_temperature"]) | set(pairs["rejected_temperature"]) <= set(PREFERENCES.temperatures)
    table, dropped = read_pairs(
        world / "preferences" / "preferences.parquet", ALIGN, codec.special, codec.vocabulary_size
    )
    assert dropped == 0
    assert [each.chosen for each in encoded(table)] == pairs["chosen_ids"].to_list(), "as they are"
    model = tuning.load_model(world / "sft")
    gap = sampling_gap(measure(model, encoded(table), 4), table, stages["sft"].digest)
    assert gap is not None
    margins.error("engine against trainer, nats per token", gap, most=1e-3)
    warm = table.with_columns(pl.col("chosen_log_prob") / 0.8)
    assert sampling_gap(measure(model, encoded(table), 4), warm, stages["sft"].digest) > 0.05, "a temperature shows"


def test_statistics_count_what_was_left_out(world: Path, stages: dict[str, Manifest]) -> None:
    figures = stages["preferences"].statistics
    assert figures["dropped"].keys() == {"prompt_too_long", "same_answer"}
    assert figures["samples"] == figures["candidates"] + figures["dropped"]["same_answer"] == 48 * 4
    assert sum(figures["candidates_by_defect"].values()) <= figures["candidates"]
    assert figures["checkpoints"] == {"tuned": stages["sft"].digest}
    assert figures["unpaired"] == pl.read_parquet(world / "preferences" / "unpaired.parquet").height
    assert stages["aligned"].statistics["dropped"] == {"too_long": 0}


def test_several_checkpoints_answer_and_a_missing_one_is_named(
    world: Path, stages: dict[str, Manifest], tmp_path: Path
) -> None:
    config = PREFERENCES.model_copy(
        update={"checkpoints": ("tuned", "base"), "max_prompts": 8, "max_pairs_per_prompt": 2}
    )
    with pytest.raises(ConfigError, match="names base, which this stage was not given; needed --base"):
        run_preferences(world, tmp_path / "none", config)
    manifest = run_preferences(world, tmp_path / "both", config, base=world / "base")
    candidates = pl.read_parquet(tmp_path / "both" / "candidates.parquet")
    assert set(candidates["checkpoint"]) == set(manifest.statistics["checkpoints"].values())
    assert len(manifest.statistics["checkpoints"]) == 2
    assert manifest.statistics["checkpoints"]["base"] in [each.digest for each in manifest.inputs]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.col("chosen_ids").alias("rejected_ids"), "row 0 has the same answer twice"),
        (pl.lit([], pl.List(pl.Int32)).alias("rejected_ids"), "rejected_ids: row 0 has no token to learn from"),
        (pl.lit([512], pl.List(pl.Int32)).alias("chosen_ids"), "chosen_ids: row 0 has token 512"),
        (pl.lit([9] * 300, pl.List(pl.Int32)).alias("prompt_ids"), "are longer than align.max_tokens of 256"),
    ],
)
def test_pairs_that_cannot_be_learned_from_are_refused(
    world: Path, stages: dict[str, Manifest], tmp_path: Path, change: pl.Expr, message: str
) -> None:
    pairs = pl.read_parquet(world / "preferences" / "preferences.parquet").with_columns(change)
    pairs.write_parquet(tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / "pairs.parquet", ALIGN, OURS, 512)
    pairs.drop("prompt_ids").write_parquet(tmp_path / "texts.parquet")
    with pytest.raises(DataError, match="lacks prompt_ids"):
        read_pairs(tmp_path / "texts.parquet", ALIGN, OURS, 512)


def test_dpo_starts_at_log_two_and_moves_the_preferred_way(
    world: Path, stages: dict[str, Manifest], margins: Margins
) -> None:
    figures = stages["aligned"].statistics
    assert figures["aligned"] is True
    history = pl.read_csv(world / "aligned" / "history.csv")
    # Policy and reference are equal at the first step.
    margins.error("begins at log two", abs(history["loss"][0] - math.log(2)), most=2e-3)
    assert history["loss"][-1] < history["loss"][0]
    assert figures["heldout_pairs"] > 0 and figures["heldout_reward_margin_after"] > 0


@pytest.mark.parametrize("loss", get_args(PairsLoss))
def test_pairs_are_learned_by_any_loss_of_trl(
    world: Path, stages: dict[str, Manifest], tmp_path: Path, loss: str
) -> None:
    values = {"losses": {loss: 1.0}, "label_smoothing": 0.01, "max_steps": 1}
    config = AlignConfig.model_validate(ALIGN.model_dump() | values)
    model = tuning.load_model(world / "sft")
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    pairs = read_pairs(world / "preferences" / "preferences.parquet", config, OURS, 512)[0]
    steps = tuning.plan_steps(config, 1.0, Budget(seconds=None, started=0.0))
    reporter = optimize(model, encoded(pairs), config, world / "sft", steps, Events("x"))
    assert reporter.last_step == 1 and math.isfinite(reporter.rows[0]["loss"])
    assert any(not torch.equal(each, before[name]) for name, each in model.named_parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"losses": {"sigmoid": 0.0}}, "weights above 0"),
        ({"losses": {"exo_pair": 1.0}}, "needs label_smoothing"),
        ({"losses": {"grpo": 1.0}}, "sigmoid"),
    ],
)
def test_losses_that_cannot_be_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AlignConfig.model_validate(ALIGN.model_dump() | values)


def test_too_many_prompts_that_are_too_long_stop_the_stage(
    world: Path, stages: dict[str, Manifest], tmp_path: Path
) -> None:
    config = PREFERENCES.model_copy(update={"max_prompt_tokens": 12})
    with pytest.raises(DataError, match=r"prompts: \d+ of \d+ are longer than preferences\.max_prompt_tokens of 12"):
        run_preferences(world, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_too_few_pairs_pass_the_model_on_and_say_so(
    world: Path,
    stages: dict[str, Manifest],
    artifact_writer: Callable[..., Path],
    tmp_path: Path,
    state: Path,
) -> None:
    few = pl.read_parquet(world / "preferences" / "preferences.parquet").head(3)
    few.write_parquet(tmp_path / "few.parquet")
    made = artifact_writer(tmp_path, "few", {"preferences.parquet": (tmp_path / "few.parquet").read_bytes()})
    manifest = align.run(
        ALIGN,
        sft=world / "sft",
        preferences=made,
        instructions=world / "instructions",
        tokens=world / "tokens",
        plan=world / "plan",
        out=tmp_path / "out",
    )
    assert manifest.statistics["aligned"] is False
    assert "min_pairs needs 4" in manifest.statistics["reason"]
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (world / "sft" / name).read_bytes()
    notes = [json.loads(line) for line in (state / "events" / "manual" / "align.jsonl").read_text().splitlines()]
    assert any(each["kind"] == "note" and "passed on unchanged" in each["text"] for each in notes)


@pytest.mark.skipif(len(cores.ALL_CORES) < 2 or torch.cuda.is_available(), reason="one core, or a GPU trains")
@pytest.mark.parametrize("stage", ["sft", "align"])
def test_threads_that_train_have_cores_of_their_own(
    world: Path, stages: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    begin, seen = tuning.Steps.begin, []

    def watched(steps: tuning.Steps) -> bool:
        seen.append(os.sched_getaffinity(0))
        return begin(steps)

    monkeypatch.setattr(tuning.Steps, "begin", watched)
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        if stage == "sft":
            run_sft(world, tmp_path / "out")
        else:
            paths = {name: world / name for name in ("sft", "preferences", "instructions", "tokens", "plan")}
            align.run(ALIGN, **paths, out=tmp_path / "out")
    finally:
        torch.set_num_threads(before)
    assert [len(each) for each in seen] == [1], "one of two cores while it trains"
    assert os.sched_getaffinity(0) == cores.ALL_CORES


class Ticking:
    """A clock that every look moves on by a tenth of a second: a run by it takes as many steps on every machine."""

    time = staticmethod(time.time)

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.1
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of alignment read a clock of their own, five seconds after their process began."""
    for module in (tuning, budget, loop):
        monkeypatch.setattr(module, "time", Ticking())
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() - 5.0)


@pytest.mark.usefixtures("ticking")
def test_a_deadline_ends_training_early(world: Path, plan_maker: Callable[..., Path], tmp_path: Path) -> None:
    seconds = 25.0
    plan = plan_maker(tmp_path, "plan", mode="deadline", steps=None, stage_seconds={"sft": seconds})
    config = SFT.model_copy(update={"max_epochs": 100_000.0, "compile_from_seconds": 1e9})
    paths = {name: world / name for name in SFT_READS} | {"plan": plan}
    manifest = sft.run(config, **paths, out=tmp_path / "out")
    run, steps = manifest.run, manifest.statistics["steps"]
    assert run["startup_seconds"] == pytest.approx(5.0, abs=1.0), "start-up counts"
    assert 20 < steps < 10 * (seconds - 4.0)
    rates = pl.read_csv(tmp_path / "out" / "history.csv")["learning_rate"]
    assert rates[-1] < 0.2 * rates.max(), "the learning rate falls with the time that is left"


@pytest.mark.usefixtures("ticking")
def test_what_the_clock_decided_replays_to_the_same_weights(world: Path, tmp_path: Path) -> None:
    codec = TextCodec(world / "base")
    lessons = sft.read_lessons(SFT, world / "instructions", codec)

    def tune(config: SftConfig, seconds: float | None) -> tuple[tuning.Steps, dict[str, torch.Tensor]]:
        model = tuning.load_model(world / "base")
        steps = tuning.plan_steps(config, 4.0, Budget(seconds=seconds, started=0.0))
        batches = sft.batches_of(config, lessons.conversations, {}, world / "tokens", codec)
        run = tmp_path / str(seconds)
        run.mkdir()
        loss = loss_of(config, model, world / "base")
        engine_tuning.tune(model, batches, config, steps, run, Events("sft"), loss=loss)
        return steps, model.state_dict()

    config = SFT.model_copy(update={"max_epochs": 1000.0})
    by_clock, weights = tune(config, 3.0)
    decided = by_clock.decided()
    assert decided["decisions"] and 0 < by_clock.last < decided["max_steps"]
    replay = SftConfig.model_validate_json(json.dumps(config.model_dump(mode="json") | decided))
    fixed, again = tune(replay, None)
    assert fixed.decided() == decided
    assert weights.keys() == again.keys() and all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_plan_without_the_stage_is_named(world: Path, plan_maker: Callable[..., Path], tmp_path: Path) -> None:
    plan = plan_maker(tmp_path, "plan", mode="deadline", steps=None, stage_seconds={})
    with pytest.raises(ArtifactError, match="stage_seconds has no sft"):
        sft.run(SFT, **({name: world / name for name in SFT_READS} | {"plan": plan}), out=tmp_path / "out")


def test_only_the_answer_has_labels(world: Path, functions: dict[str, sft.Instruction]) -> None:
    codec = TextCodec(world / "base")
    row = sft.row_of(sft.encode(functions["scale_apples"], codec))
    labelled = [label for label in row["labels"] if label != -100]
    assert labelled[-1] == END_ID
    assert codec.decode(labelled[:-1]) == "    return a * factor"
    assert row["input_ids"][-len(labelled) :] == labelled


def test_likelihoods_do_not_depend_on_the_batch(
    world: Path, functions: dict[str, sft.Instruction], margins: Margins
) -> None:
    codec = TextCodec(world / "base")
    model = tuning.load_model(world / "base")
    rows = [sft.row_of(sft.encode(each, codec)) for each in functions.values()]
    together = tuning.log_likelihoods(model, rows, 8)
    alone = [tuning.log_likelihoods(model, [row], 1)[0] for row in rows]
    margins.close("log-likelihoods", torch.tensor(together), torch.tensor(alone), rtol=1e-4, atol=0.0)
