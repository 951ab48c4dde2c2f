"""`overnight plan`: machines of the table, figures for scripts, lines for people, errors with exit code 2."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from components.core import artifact
from components.core.config import read_settings, read_yaml
from components.core.errors import ConfigError, DataError
from components.core.graph.closure import ROOT
from components.core.graph.stages import read_stages
from components.lineage import survey
from components.tokens.foreign import adoption
from components.training.config import PretrainConfig
from components.training.engine.model.shape import Counts, Shape
from components.training.plan import shape_for
from components.training.planning import fitted, ladder
from components.training.planning.fitted import Domain, FittedLaw, Point, domain_of
from components.training.planning.hardware_table import machine_of
from components.training.planning.law_fit import fit
from components.training.planning.laws import Law
from components.training.planning.memory_estimate import largest_micro_batch
from dashboards.report import laws_chart
from flows.commands import plan as plan_command
from flows.commands.plan import Options
from flows.running import graph
from flows.running.deadline import require_possible
from flows.running.params import checked, read_params
from tests.training.foreign import write_checkpoint
from tests.training.planning.test_ladder import PLAN, SIZES
from tests.training.test_pretrain import VOCABULARY_SIZE, make_inputs


def quiet(options: Options) -> dict[str, object]:
    return plan_command.run(options, lambda _: None)


def test_a_machine_of_the_table_needs_nothing_trained_and_takes_its_profile() -> None:
    found = plan_command.run(Options(hardware="h100x8", hours=24.0), lambda _: None)
    assert (found["hardware"], found["measured"], found["profile"]) == ("h100x8", False, "h100x8-day")
    assert sum(each["chosen"] for each in found["alternatives"]) == 1
    assert any("from the table, not measured" in each for each in found["notes"])
    # 8 GPUs of 989 TFLOP/s at 40 %, by hand.
    row = next(each for each in found["alternatives"] if each["width"] == 2048)
    assert row["tokens_per_second"] * 6 * row["parameters"] == pytest.approx(8 * 989e12 * 0.4, rel=0.3)
    assert len(plan_command.table(found)) == len(found["alternatives"])
    assert plan_command.lines(found)[0].startswith("chosen: ")


def test_laws_say_what_the_compute_at_hand_would_do_best() -> None:
    found = plan_command.run(Options(hardware="h100x8", hours=24.0), lambda _: None)
    (row,) = [each for each in found["alternatives"] if each["chosen"]]
    best = found["compute_optimal"]
    assert best["flops"] == 6 * row["parameters"] * row["tokens"]
    # Chinchilla's rule for Besiroglu's fit, and no higher loss than the size that is trained.
    assert 15 < best["tokens"] / best["parameters"] < 25 and best["covers"] and best["cerebras_covers"]
    assert 6 * best["parameters"] * best["tokens"] == pytest.approx(best["flops"], rel=1e-6)
    assert best["loss"] <= row["besiroglu_loss"]
    (line,) = [each for each in plan_command.lines(found) if each.startswith("compute-optimal")]
    assert "(Besiroglu et al. 2024)" in line and f"{best['cerebras_loss']:.2f} nats/token" in line


def test_the_simulation_keeps_its_figures_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_command, "REPORTS", tmp_path)
    found = plan_command.run(Options(hardware="h200", simulate=50, seed=1), lambda _: None)
    kept = json.loads((tmp_path / "simulation-h200.json").read_text())
    assert kept == found["simulation"]
    assert kept["cycles"] == 50 and 0 <= kept["met"] <= kept["met_within_5_percent"] <= 1
    assert ElementTree.parse(tmp_path / "simulation-h200.svg").getroot().tag.endswith("svg")
    assert any("50 simulated cycles" in each for each in plan_command.lines(found))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(hardware="h100x8", hours=0.5), r"plan\.hours is 0\.5; .* the shortest possible is \d"),
        (Options(hardware="h100x8", hours=-1.0), r"--hours -1: needed more than 0"),
        (Options(hardware="tpu"), r"--hardware tpu: not in the table; nearest: "),
        (Options(profile="h100x9-day"), r"profile 'h100x9-day' does not exist; there are: "),
        (Options(hardware="h100", simulate=0), r"--simulate 0: needed 1 or more"),
        (Options(hardware="h100", price_per_hour=-2.0), r"--price-per-hour -2: needed 0 or more"),
    ],
)
def test_what_cannot_be_is_one_line(options: Options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quiet(options)


def test_the_shortest_deadline_that_is_named_is_accepted() -> None:
    with pytest.raises(ConfigError) as caught:
        quiet(Options(hardware="h100x8", hours=0.5))
    shortest = float(str(caught.value).rsplit(" ", 1)[1])
    assert quiet(Options(hardware="h100x8", hours=shortest))["hours"] == shortest


def test_the_cycle_names_the_same_shortest_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path))
    monkeypatch.setattr(graph, "current_stages", lambda _: set())
    monkeypatch.setattr(survey, "LAWS", tmp_path / "laws.json")
    params = read_params()
    short = params.model_copy(update={"plan": params.plan.model_copy(update={"hours": 0.01})})
    with pytest.raises(ConfigError, match="shortest possible") as by_cycle:
        require_possible(short, read_settings(), read_stages(), params)
    with pytest.raises(ConfigError, match="shortest possible") as by_plan:
        quiet(Options(hours=0.01))
    shortest = [float(str(each.value).rsplit(" ", 1)[1]) for each in (by_cycle, by_plan)]
    assert shortest[0] == pytest.approx(shortest[1], abs=0.0011)


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--hardware", "h10x8"], "nearest: h100"), (["--fit-minutes", "0"], "--fit-minutes 0: needed more than 0")],
)
def test_the_command_exits_with_2_and_without_a_traceback(options: list[str], told: str) -> None:
    command = [sys.executable, "-m", "flows.commands.cli", "plan", *options, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1 and told in ran.stderr
    assert ran.stdout == ""


def test_the_plot_of_a_fit_shows_every_run_and_the_planned_one() -> None:
    points = [
        Point(
            layers=2,
            width=width,
            parameters=size,
            steps=1,
            tokens=tokens,
            loss=1 + (1e5 / size) ** 0.4 + (1e5 / tokens) ** 0.4,
        )
        for width, size in ((64, 600_000), (128, 1_800_000), (192, 4_000_000))
        for tokens in (200_000, 800_000, 3_000_000)
    ]
    domain = Domain(tokenizer_digest="", vocabulary_size=1, architecture="", shape_digest="")
    law = FittedLaw.of(fit([each.run for each in points], source="test", draws=50), points, domain, 0.9)
    drawn = ElementTree.fromstring(laws_chart.fit_svg(law, None))
    assert len(drawn.findall("{http://www.w3.org/2000/svg}circle")) == len(points)
    assert law.held_back is not None and law.held_back.point.parameters == 4_000_000


def record_runs(root: Path, state: Path, minutes: float, law: Law) -> None:
    """What the ladder leaves of a fit that was cut off after its last run: its design and a file for each run."""
    manifest, lengths = artifact.read(root / "tokens"), (20, 40, 80)
    pretrain = PretrainConfig(final_validation_bytes=PLAN.fit.validation_bytes)
    key = ladder._key(manifest.digest, domain_of(manifest, PLAN), PLAN, pretrain, minutes)
    folder = state / "laws" / key
    folder.mkdir(parents=True)
    rows = [{"layers": size.layers, "width": size.width, "steps": lengths} for size in SIZES]
    (folder / "design.json").write_text(json.dumps(rows))
    for size in SIZES:
        parameters = shape_for(PLAN, size, VOCABULARY_SIZE).parameters
        for steps in lengths:
            tokens = steps * PLAN.batch_samples * PLAN.sequence_length
            loss = law.loss(parameters, tokens)
            point = Point(
                layers=size.layers, width=size.width, parameters=parameters, steps=steps, tokens=tokens, loss=loss
            )
            (folder / f"{size.layers}x{size.width}-{steps}.json").write_text(point.model_dump_json())


def test_a_fit_goes_on_from_its_runs_and_leaves_the_law_where_the_plan_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_RAY_NUM_CPUS", "1")
    stages = [replace(each, outputs=(tmp_path / each.output.name,)) for each in read_stages()]
    monkeypatch.setattr(plan_command, "read_stages", lambda: stages)
    monkeypatch.setattr(plan_command, "REPORTS", tmp_path / "laws")
    monkeypatch.setattr(survey, "LAWS", tmp_path / "laws.json")
    chosen = read_params().model_copy(update={"pretrain": PretrainConfig(), "plan": PLAN})
    with pytest.raises(DataError, match=r"tokens: not there, and a law is fitted on it; `overnight cycle --until tok"):
        plan_command._fit(chosen, PLAN, 0.5, read_settings(), print)
    make_inputs(tmp_path)
    planted = Law(source="planted", irreducible=0.6, a=40.0, alpha=0.35, b=300.0, beta=0.4)
    record_runs(tmp_path, tmp_path / "state", 0.5, planted)
    told: list[str] = []
    law = plan_command._fit(chosen, PLAN, 0.5, read_settings(), told.append)
    assert told[-1].startswith("9 of 9 runs are there"), "nothing was trained"
    assert law.predict(1e5, 1e5).value == pytest.approx(planted.loss(1e5, 1e5), rel=1e-3)
    assert fitted.read(survey.LAWS) == law
    kept = json.loads((plan_command.REPORTS / "fit.json").read_text())
    assert kept["intervals"] == law.intervals() and len(kept["points"]) == 9 and "draws" not in kept


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "llama", steps=1)


def profile_from(checkpoint: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile of ours whose checkpoint is another one."""
    text = (ROOT / "profiles" / f"{name}.yaml").read_text()
    changed = re.sub(r'init_from: ("[^"]+"|[^,}]+)', f'init_from: "{checkpoint}"', text)
    assert changed != text
    (folder / f"{name}.yaml").write_text(changed)
    monkeypatch.setattr(plan_command.params, "PROFILES", folder)
    monkeypatch.setattr(plan_command.params.compose, "__defaults__", (folder,))
    return name


def test_the_profiles_that_adapt_plan_the_checkpoint_and_not_the_ladder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = profile_from(checkpoint, tmp_path, "adapt-gpu", monkeypatch)
    found = quiet(Options(profile=name, hardware="h200"))
    (row,) = found["alternatives"]  # type: ignore[misc]
    held = adoption.foreseen(str(checkpoint), 0)
    assert (row["layers"], row["width"], found["reason"]) == (held.layers, held.width, "the only size")
    assert row["parameters"] == held.total + 2 * held.width * (held.vocabulary_size - held.rows)
    assert found["notes"][-1] == f"goes on from {checkpoint}, a llama"  # type: ignore[index]
    assert not any("vocabulary is params.yaml's" in each for each in found["notes"])  # type: ignore[attr-defined]


CODE_MODELS = {  # as Qwen2.5-Coder's: layers, width, feed-forward, heads, key-value heads, tied
    1.5: (28, 1536, 8960, 12, 2, True),
    3.1: (36, 2048, 11008, 16, 2, True),
}


@pytest.mark.parametrize("billions", CODE_MODELS)
def test_code_models_of_the_sizes_that_it_is_for_fit_one_h200(billions: float) -> None:
    plan = checked(read_yaml(ROOT / "profiles" / "adapt-gpu.yaml"), "adapt-gpu").plan
    layers, width, feed_forward, heads, key_value_heads, tied = CODE_MODELS[billions]
    counted = Counts(total=int(billions * 1e9), active=int(billions * 1e9))
    shape = Shape(
        architecture="qwen2",
        vocabulary_size=152_064,
        context=32_768,
        layers=layers,
        width=width,
        heads=heads,
        key_value_heads=key_value_heads,
        feed_forward=feed_forward,
        rope_theta=1e6,
        tied=tied,
        counted=counted,
    )
    machine = machine_of("h200")
    samples = largest_micro_batch(shape, plan, "bfloat16", machine.memory_bytes)
    assert samples is not None and plan.batch_samples % samples == 0
    tokens = machine.achieved_flops / shape.training_flops_per_token(plan.sequence_length) * 20 * 3600
    assert tokens > 2e8, "twenty hours give it more tokens than most repositories have"
