"""Measuring models: likelihood against a plain forward pass and xz itself, places, and the whole stage."""

import functools
import inspect
import json
import math
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from components.alignment.config import CurriculumConfig
from components.alignment.examples.instruction import TABLE, to_table
from components.alignment.instructions import curriculum
from components.core import artifact
from components.core.config import StepConfig, read_settings
from components.core.errors import ArtifactError, DataError
from components.core.events import Events, read_events
from components.data.documents.canaries import PACKAGE as CANARIES
from components.evaluation import evaluate
from components.evaluation.comparison.compare import PASSES, Sides, compare_items, judge, pairs_for
from components.evaluation.comparison.criteria import Criteria, Guard
from components.evaluation.config import (
    CompletionConfig,
    EvaluateConfig,
    FunctionalConfig,
    LatencyConfig,
    LikelihoodConfig,
    RepositoryConfig,
    SafetyConfig,
)
from components.evaluation.measures.answers import SUITES as ANSWERS
from components.evaluation.measures.completion import body_of, edit_similarity, line_end_ids
from components.evaluation.measures.likelihood import (
    RelatedDocument,
    bits_per_byte,
    context_bits,
    predictions,
    related_documents,
    slices,
    unigram_bits_per_byte,
    xz_bits_per_byte,
)
from components.evaluation.measures.model_measures import figures, narrowed, questions_of
from components.evaluation.measures.places import function_places, has_body, indented, line_places
from components.evaluation.safety.suites import SAFETY_SUITES
from components.execution import sandbox
from components.inference.engine import Completion
from components.inference.repository_context import RelatedFile, context_tokens
from components.inference.transformers_engine import TransformersEngine
from components.tokens import tokenize
from components.tokens.config import TokenizeConfig
from components.tokens.encoding.codec import TextCodec
from tests.serving.random_model import write_random_model

pytestmark = pytest.mark.numeric

SOURCES = [inspect.getsource(module) for module in (inspect, functools, json, shutil, subprocess, os)]
INFILLING = ("infilling", "infilling_multi_line", "infilling_random_span")
IDS = [f"{number:064x}" for number in range(len(SOURCES))]
CONFIG = EvaluateConfig(
    likelihood=LikelihoodConfig(max_bytes=60_000, min_slice_documents=2),
    completion=CompletionConfig(
        next_lines=6,
        infilled_lines=5,
        infilled_spans=4,
        blocks=4,
        functions=4,
        max_line_tokens=8,
        max_block_tokens=8,
        max_function_tokens=8,
    ),
    latency=LatencyConfig(streams=(1, 3), rounds=2, prompt_tokens=8, new_tokens=3),
    functional=FunctionalConfig(num_samples=2, k=(1, 2), temperatures=(0.2, 0.8), max_new_tokens=8),
    safety=SafetyConfig(
        max_prompts=6, max_look_alikes=24, attacks=("plain", "base64"), max_new_tokens=8, canaries=3, windows=4
    ),
    resamples=200,
)


class NoConfig(StepConfig):
    """The config of a stage that stands for another one."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/base, models/sft and models/aligned: random and different."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "sft", "aligned")):
        write_random_model(root / name, seed)
    return root


@pytest.fixture(scope="module")
def data(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clean and tokens artifacts of six modules of the standard library, and instructions that were never learned."""
    root = tmp_path_factory.mktemp("data")
    rows = pl.DataFrame({"id": IDS, "text": SOURCES, "cluster": IDS}).with_columns(
        *(pl.lit("x").alias(name) for name in ("path", "package", "licence", "source")),
        pl.lit("python").alias("language"),
        bytes=pl.col("text").str.len_bytes().cast(pl.Int64),
    )
    code = Path(__file__)
    with artifact.create(root / "clean", stage="clean", config=NoConfig(), inputs=[], code=code) as draft:
        rows.write_parquet(draft.path / "part-00000.parquet")
    with artifact.create(root / "instructions", stage="asks", config=NoConfig(), inputs=[], code=code) as draft:
        asked = curriculum(CurriculumConfig(tuning=0, heldout=3, pairs=0), 0)
        to_table(asked).write_parquet(draft.path / TABLE)
    config = TokenizeConfig(validation_fraction=0.5)
    tokenize.run(config, source=root / "clean", tokenizer=models / "base", out=root / "tokens")
    return root


def read_by(data: Path) -> dict[str, Path]:
    """What the stage reads beside the models."""
    return {"tokens": data / "tokens", "source": data / "clean", "instructions": data / "instructions"}


@torch.inference_mode()
def test_bits_per_byte_are_those_of_a_forward_pass(models: Path) -> None:
    """A text within the context, and a longer one, token by token with the window that it falls into."""
    codec, engine = TextCodec(models / "base"), TransformersEngine(models / "base", num_threads=1)
    model = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.float32)
    context = engine.context_tokens
    for text in (SOURCES[2][:90], SOURCES[2][:700]):
        tokens = [0, *codec.encode(text), 0]
        nats = 0.0
        for target in range(1, len(tokens)):
            beyond = math.ceil(max(0, target - context) / (context // 2))
            first = max(0, min(context + beyond * (context // 2), len(tokens) - 1) - context)
            logits = model(torch.tensor([tokens[first:target]])).logits[0, -1]
            nats -= float(logits.log_softmax(-1)[tokens[target]])
        size = np.array([float(len(text.encode()))])
        wanted = nats / np.log(2) / size[0]
        (found_prediction,) = predictions(engine, [codec.encode(text)])
        found = bits_per_byte([found_prediction.log_probs], size)
        assert found == pytest.approx(wanted, rel=1e-5)


def test_related_files_are_of_training_and_of_the_package(tmp_path: Path) -> None:
    """The nearest last, of the documents that have any; no canary, no held-out document."""
    names = {"p": ["a/held", "a/near", "far", "used", "a/also_held"], "q": ["held"], CANARIES: ["held", "key"]}
    rows = pl.DataFrame(
        [(f"{package}/{name}", package, name == "a/held") for package, each in names.items() for name in each],
        schema=["id", "package", "imports"],
        orient="row",
    ).with_columns(path=pl.col("id") + ".py", text=pl.col("id") + pl.when("imports").then(pl.lit("\nimport p.used")))
    rows = rows.with_columns(pl.col("text").fill_null(pl.col("id")))
    with artifact.create(tmp_path / "clean", stage="clean", config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
        rows[:3].write_parquet(draft.path / "part-00000.parquet")
        rows[3:].write_parquet(draft.path / "part-00001.parquet")
    rows.filter(pl.col("id").str.ends_with("held")).write_parquet(tmp_path / "validation.parquet")
    found = related_documents(tmp_path, tmp_path / "clean", RepositoryConfig(documents=9, files=2), seed=0)
    shown = {each.id: [file.path for file in each.files] for each in found}
    assert shown == {"p/a/also_held": ["p/used.py", "p/a/near.py"], "p/a/held": ["p/a/near.py", "p/used.py"]}
    (one,) = related_documents(tmp_path, tmp_path / "clean", RepositoryConfig(documents=1, files=2), seed=0)
    assert one in found and found[1].files[-1] == RelatedFile(path="p/used.py", text="p/used")
    assert related_documents(tmp_path, tmp_path / "clean", RepositoryConfig(documents=0), seed=0) == ()


@torch.inference_mode()
def test_the_same_tokens_are_scored_with_and_without_related_files(models: Path) -> None:
    codec, engine = TextCodec(models / "base"), TransformersEngine(models / "base", num_threads=1)
    model = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.float32)
    file = RelatedFile(path="p/a.py", text="def f(a):\n    return a\n")
    documents = [
        RelatedDocument(id=name, path="p/b.py", text=SOURCES[2][:size], files=(file,))
        for name, size in (("short", 30), ("long", 700))
    ]
    found = context_bits(engine, codec, documents)
    for number, each in enumerate(documents):
        body = codec.encode(each.text)[: engine.context_tokens // 2]
        context = context_tokens(codec, each.path, "", [file], engine.context_tokens - len(body))
        assert found.num_bytes[number] == len(codec.decode(body).encode()) and len(context) > 10
        for before, bits in (([], found.without_context), (context, found.with_context)):
            tokens = [0, *before, *body]
            logits = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
            nats = -sum(float(logits[place - 1, tokens[place]]) for place in range(1 + len(before), len(tokens)))
            assert bits[number] == pytest.approx(nats / np.log(2) / found.num_bytes[number], rel=1e-5)


def test_unigram_is_the_entropy_of_its_counts() -> None:
    """On a text whose frequencies equal the counts, bits per token are the entropy of the counts, plus one each."""
    counts = np.array([1, 3, 12], dtype=np.int64)
    shares = (counts + 1) / (counts + 1).sum()
    document = [1] * 4 + [2] * 13 + [0]
    found = unigram_bits_per_byte(counts, [document], np.array([1.0]))[0]
    assert found == pytest.approx(-(np.bincount([*document, 0]) * np.log2(shares)).sum())


def test_xz_is_the_command(tmp_path: Path) -> None:
    if shutil.which("xz") is None:
        pytest.skip("no xz command here")
    sizes = np.array([float(len(text.encode())) for text in SOURCES])
    commanded = [
        len(subprocess.run(["xz", "-9", "-c"], input=text.encode(), capture_output=True, check=True).stdout)
        for text in SOURCES
    ]
    np.testing.assert_allclose(xz_bits_per_byte(SOURCES, sizes), 8 * np.array(commanded) / sizes)


@functools.cache
def distance(left: str, right: str) -> int:
    """Levenshtein's recursion as it is defined."""
    if not left or not right:
        return len(left) + len(right)
    return min(
        distance(left[1:], right) + 1,
        distance(left, right[1:]) + 1,
        distance(left[1:], right[1:]) + (left[0] != right[0]),
    )


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_edit_similarity_is_levenshtein(left: str, right: str) -> None:
    longest = max(len(left), len(right))
    assert edit_similarity(left, right) == pytest.approx(1 - distance(left, right) / longest if longest else 1)


def test_lines_are_cut_out_of_their_documents() -> None:
    places = line_places(IDS, SOURCES, 50, seed=1)
    assert len({place.item for place in places}) == 50
    assert places == line_places(IDS, SOURCES, 50, seed=1) != line_places(IDS, SOURCES, 50, seed=2)
    for place in places:
        document, number = place.item.split(":")
        text = SOURCES[IDS.index(document)]
        assert text.split("\n")[int(number) - 1] == place.missing
        assert place.prefix + place.missing + place.suffix in text


def test_functions_parse_with_their_own_body_and_not_without() -> None:
    places = function_places(IDS, SOURCES, 1000, seed=0)
    assert len(places) > 50
    for place in places:
        document, number = place.item.split(":")
        text = SOURCES[IDS.index(document)]
        rest = "\n".join(text.split("\n")[int(number) - 1 :])
        assert rest.startswith(place.head)
        assert place.prefix.endswith(place.head)
        body = indented(rest.removeprefix(place.head))
        assert has_body(place.head + body), place.head
        assert not has_body(place.head)
        assert not has_body(place.head + "    return (\n")


def test_a_source_that_cannot_be_parsed_offers_no_function() -> None:
    assert function_places(["a", "b"], ["def f(:\n", "def f():\r    return 1\n"], 9, seed=0) == []


def test_an_unfinished_last_line_is_left_out(models: Path) -> None:
    codec = TextCodec(models / "base")

    def body(text: str, ended: bool) -> str:
        return body_of(codec, Completion(tokens=tuple(codec.encode(text)), finish_reason="stop" if ended else "length"))

    assert body("    x = 1\n    retu", ended=False) == "    x = 1\n"
    assert body("    x = 1\n    return x", ended=True) == "    x = 1\n    return x"
    assert body("    return x\n\ndef g(", ended=False) == "    return x\n"


def test_line_ends_are_all_tokens_that_hold_one(models: Path) -> None:
    codec = TextCodec(models / "base")
    found = line_end_ids(codec)
    assert found[0] == 0
    for token in set(codec.encode("a\n\n    \n b\r\n")):
        assert (token in found) == ("\n" in codec.decode([token]))


def test_the_stage(models: Path, data: Path, tmp_path: Path) -> None:
    """Two runs have one digest; figures follow from items; every model is asked the same."""
    paths = {name: models / name for name in ("base", "sft", "aligned")}
    manifests = [evaluate.run(CONFIG, **read_by(data), out=tmp_path / name, **paths) for name in ("one", "two")]
    assert manifests[0].digest == manifests[1].digest
    metrics = json.loads((tmp_path / "one" / "figures.json").read_text())
    items = pl.read_parquet(tmp_path / "one" / "items.parquet")
    shown = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert [each.path for each in manifests[0].timed] == ["metrics.json"] and 8 <= len(shown) <= 15
    bounds = metrics["aligned"]["likelihood"]["bits_per_byte"]
    assert [shown[f"bits_per_byte{end}"] for end in ("", "_low", "_high")] == pytest.approx(
        [bounds[name] for name in ("value", "low", "high")], rel=1e-4
    )
    assert shown["pass_at_1"] == metrics["aligned"]["short_tasks"]["pass_at_1_t0.2"]["value"]
    assert shown["answer_seconds"] == pytest.approx(
        manifests[0].run["latency"]["aligned"]["streams_1_seconds"]["value"], rel=1e-4
    )
    assert list(metrics) == ["unigram", "ngram", "xz", "base", "sft", "aligned"]
    assert metrics["xz"]["likelihood"]["bits_per_byte"] == metrics["sft"]["likelihood"]["xz_bits_per_byte"]
    bits = {name: found["likelihood"]["bits_per_byte"]["value"] for name, found in metrics.items()}
    assert bits["ngram"] < bits["unigram"]
    sliced = {"language_python_bits_per_byte", "source_x_bits_per_byte"}
    for model in metrics:
        assert sliced <= set(metrics[model]["likelihood"])
    times = manifests[0].run["latency"]
    assert times["load"] >= 0 and set(times) == {"load", "base", "sft", "aligned"}
    for (model, suite, metric), rows in items.group_by("model", "suite", "metric"):
        found = metrics[model][suite][metric]
        assert found["value"] == pytest.approx(np.average(rows["value"], weights=rows["weight"]))
        assert found["low"] <= found["value"] <= found["high"]
        assert found["n"] == len(rows)
    assert manifests[0].statistics["same_as"] == {}
    asked = [items.filter(model=name).select("suite", "metric", "item", "weight") for name in paths]
    assert asked[0].equals(asked[1])
    assert asked[0].equals(asked[2])
    written = {"completion", *INFILLING, "short_tasks", *ANSWERS}
    assert set(asked[0]["suite"]) == {"likelihood", "repository_context", *written, *SAFETY_SUITES}
    assert set(metrics["sft"]["repository_context"]) == {f"with{out}_context_bits_per_byte" for out in ("", "out")}
    for suite in ANSWERS:
        assert {name: each["n"] for name, each in metrics["sft"][suite].items()} == {"passes": 3, "ends": 3}
    for suite in INFILLING:
        assert set(metrics["base"][suite]) >= {"exact_match", "edit_similarity"}
    assert set(metrics["sft"]["short_tasks"]) == {f"pass_at_{k}_t{t}" for k in (1, 2) for t in (0.2, 0.8)}
    assert set(figures(metrics["sft"])) == {"bits_per_byte", "xz_bits_per_byte", "parse_share"}
    overlap = pl.read_parquet(tmp_path / "one" / "contamination.parquet")
    assert overlap.select("suite", "item").rows() == list(dict.fromkeys(items.select("suite", "item").iter_rows()))
    assert manifests[0].statistics["contamination"]["short_tasks"]["items_contaminated"] == 0
    bins = pl.read_parquet(tmp_path / "one" / "calibration.parquet")
    for name in paths:
        own = bins.filter(model=name)
        gap = ((own["confidence"] - own["accuracy"]).abs() * own["places"]).sum() / own["places"].sum()
        assert gap == pytest.approx(metrics[name]["likelihood"]["calibration_error"]["value"])
    answers = pl.read_parquet(tmp_path / "one" / "answers.parquet")
    first = answers.filter(~pl.col("prompt").str.contains("~", literal=True))
    assert first.group_by("model").len().sort("model").rows() == [("aligned", 36), ("base", 36), ("sft", 36)]
    absent = {"documents": 0, "with_secret": 0}
    assert manifests[0].statistics["canaries_in_training"] == dict.fromkeys(("key", "email", "account"), absent)
    safety = manifests[0].statistics["safety"]
    kappa = metrics["sft"]["safety_judge"]["kappa"]
    assert kappa["value"] == pytest.approx(safety["judge_kappa"], abs=1e-6)
    assert kappa["low"] < kappa["value"] < kappa["high"]
    windows = min(4, len(pl.read_parquet(data / "tokens" / "train.documents.parquet")))
    assert metrics["sft"]["memorisation"]["verbatim"]["n"] == safety["training_windows"] == windows > 1
    table = pl.read_csv(tmp_path / "one" / "summary.csv")
    assert len(table) == items.select("model", "suite", "metric").n_unique()


def test_a_model_that_was_passed_on_is_measured_once(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal files are one model, whatever else their artifacts hold; it has figures under both names. That programs
    had no control group around them is recorded, and said."""
    monkeypatch.setattr(sandbox, "sums_memory", lambda: False)
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    passed_on = tmp_path / "aligned"
    code, inputs = Path(__file__), [artifact.read(models / "sft")]
    with artifact.create(passed_on, stage="align", config=NoConfig(), inputs=inputs, code=code) as draft:
        for path in (models / "sft").iterdir():
            if path.name != artifact.MANIFEST:
                shutil.copyfile(path, draft.path / path.name)
        (draft.path / "history.csv").write_text("step\n")
    paths = {"base": models / "base", "sft": models / "sft", "aligned": passed_on}
    made = evaluate.run(CONFIG, **read_by(data), out=tmp_path / "out", **paths)
    assert made.statistics["same_as"] == {"aligned": "sft"}
    assert made.run["isolation"] == {"backend": sandbox.isolation(), "control_group": False}
    told, _ = read_events(Events.path_of("evaluate", read_settings()))
    assert sandbox.warning() in [each["text"] for each in told if each["kind"] == "note"]
    assert set(made.run["seconds_per_model"]) == {"base", "sft"}
    metrics = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert metrics["aligned"] == metrics["sft"] != metrics["base"]
    assert made.run["latency"]["aligned"] == made.run["latency"]["sft"]
    for name in ("items", "calibration", "answers"):
        rows = pl.read_parquet(tmp_path / "out" / f"{name}.parquet")
        assert rows.filter(model="aligned").drop("model").equals(rows.filter(model="sft").drop("model"))


@pytest.mark.parametrize(
    ("name", "columns"), [("validation.documents.parquet", ["source"]), ("validation.parquet", ["language"])]
)
def test_documents_of_older_code_are_one_line(data: Path, tmp_path: Path, name: str, columns: list[str]) -> None:
    tokens = tmp_path / "tokens"
    shutil.copytree(data / "tokens", tokens)
    pl.read_parquet(tokens / name).drop(columns).write_parquet(tokens / name)
    said = rf"{name}: found columns .*id.*; needed {columns[0]} as well: older code wrote it; make .*tokens again with"
    with pytest.raises(ArtifactError, match=said):
        evaluate.read_questions(tokens, [], CONFIG)


def test_two_models_are_compared_on_the_same_questions(models: Path, data: Path) -> None:
    asked = evaluate.read_questions(data / "tokens", [], CONFIG)
    metrics, items = {}, {}
    for name in ("base", "sft"):
        found, items[name] = evaluate.evaluate_model(models / name, asked, CONFIG)
        metrics |= found
    sides = Sides(candidates=(items["base"],), champions=(items["sft"],))
    rows = {each.metric: each for each in compare_items(sides, Criteria(resamples=1000))}
    bits = rows["bits_per_byte"]
    assert bits.champion == pytest.approx(metrics["sft"]["likelihood"]["bits_per_byte"]["value"])
    assert bits.difference == pytest.approx(bits.candidate - bits.champion)
    assert rows["xz_bits_per_byte"].difference == 0
    criteria = Criteria(guards=(Guard(metric="safety/over_refusal", better="lower", margin=0.5),))
    guards = [check for check in judge(criteria, pairs_for(criteria, sides)) if "safety/over_refusal" in check[1]]
    assert rows["over_refusal"].n == 24 and [outcome for outcome, _ in guards] == [PASSES]


def test_the_gate_asks_for_no_more_than_its_metrics(data: Path) -> None:
    asked = evaluate.read_questions(data / "tokens", [], CONFIG)
    default = narrowed(asked, Criteria().metrics)
    assert narrowed(asked, ["likelihood/bits_per_byte"]).safety is None and asked.safety is not None
    assert default.safety == replace(asked.safety, windows=None) != asked.safety
    assert narrowed(asked, ["safety/over_refusal"]).safety == replace(asked.safety, windows=None, canaries=())
    assert default.functions == asked.functions != ()
    assert (default.next_lines, default.blocks, set(default.infilling)) == ((), (), {"infilling"})
    some = narrowed(asked, ["completion/block_exact_match", "infilling_random_span/parse_share"])
    assert (some.blocks, some.next_lines, some.functions) == (asked.blocks, (), ())
    assert list(some.infilling) == ["infilling_random_span"]


def test_slices_part_the_documents() -> None:
    """By language, by source and by length: what has enough documents, each document once in each kind."""
    documents = pl.DataFrame(
        {"language": ["python", "go", "go", None, "python"], "source": ["a b", "a b", "c/d", "c/d", "c/d"]}
    )
    sizes = np.array([99.0, 100.0, 150.0, 200.0, 5000.0])
    found = slices(documents, sizes, LikelihoodConfig(length_edges_bytes=(100, 200), min_slice_documents=2))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "language_go": [1, 2],
        "language_python": [0, 4],
        "source_a_b": [0, 1],
        "source_c_d": [2, 3, 4],
        "bytes_100_to_200": [1, 2],
        "bytes_from_200": [3, 4],
    }


def test_lengths_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match=r"length_edges_bytes are \[5, 5\], needed rising sizes above 0"):
        LikelihoodConfig(length_edges_bytes=(5, 5))


def test_no_document_no_figure() -> None:
    with pytest.raises(DataError, match=r"raise tokenize\.validation_fraction"):
        questions_of(pl.DataFrame(schema=dict.fromkeys(("id", "text", "language", "source"), pl.String)), [], CONFIG)
