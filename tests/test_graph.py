"""dvc.yaml is the only list of stages; the key of each holds all the code that the stage runs, and no other."""

import dataclasses
import json
import shutil
from pathlib import Path

import networkx
import pytest
from dvc.repo import Repo

from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import ConfigError
from components.core.graph import reads, stages
from components.core.graph.closure import ROOT, closure, code_of
from components.core.graph.stages import Stage, read_all, read_stages
from components.deadline.config import StageReserves
from components.lineage import survey
from flows.running.graph import runs_again
from flows.running.params import compose, defaults, overridden, profile_names, section_names, tree
from tests.imports import imported, modules

STAGES = [
    "ingest",
    "check_raw",
    "clean",
    "check_clean",
    "vocabulary",
    "tokenize",
    "plan",
    "pretrain",
    "instructions",
    "sft",
    "preferences",
    "align",
    "evaluate",
]


@pytest.fixture(scope="module")
def tree_of_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of components/ and dvc.yaml."""
    root = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "components", root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "dvc.yaml", root / "dvc.yaml")
    return root


def test_the_graph_is_the_one_that_dvc_sees() -> None:
    ours = read_all(ROOT)
    assert [each.name for each in read_stages(ROOT)] == STAGES
    with Repo(str(ROOT)) as repo:
        graph = networkx.relabel_nodes(repo.index.graph, {each: each.name for each in repo.index.stages})
        outputs = {each.name: [Path(out.fs_path).relative_to(ROOT) for out in each.outs] for each in repo.index.stages}
    assert {each.name: list(each.outputs) for each in ours} == outputs
    order = {each.name: place for place, each in enumerate(ours)}
    assert order.keys() == set(graph) and all(order[later] > order[earlier] for later, earlier in graph.edges)
    for name in order:
        assert stages.descendants(ours, [name]) == {name, *networkx.ancestors(graph, name)}
    assert networkx.ancestors(graph, "survey") == set(STAGES), "`dvc repro` surveys before anything else"
    assert list(graph.predecessors("survey")) == ["ingest"], "and its arrow is one, for `dvc dag` to stay legible"


def test_the_graph_fits_on_one_screen() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 200


def test_a_key_holds_every_module_that_the_stage_imports_and_no_other(tree_of_code: Path) -> None:
    """Which keys change with the bytes of a file, for every file, against what Python's own bytecode imports."""
    names = {each.name: tree_of_code / each.module_path for each in read_stages(ROOT)}
    before = {name: code_of(path, tree_of_code) for name, path in names.items()}
    files = [path for path in (tree_of_code / "components").rglob("*") if path.is_file() and path.stat().st_size]
    for path in files:
        path.write_bytes(path.read_bytes() + b"\n")
    after = {name: code_of(path, tree_of_code) for name, path in names.items()}
    expected = {name: imported(tree_of_code, path) for name, path in names.items()}
    for path in files:
        place = path.relative_to(tree_of_code).as_posix()
        changed = {name for name in names if before[name].get(place) != after[name].get(place)}
        if path.suffix == ".py":
            assert changed == {name for name in names if place in expected[name]}, place
        else:
            assert changed, f"{place}: no stage reads it, or it is missing in the key of the one that does"
    assert len(files) > 250 and modules(tree_of_code) >= expected["evaluate"]


def test_the_closure_holds_files_beside_a_module_and_what_is_loaded_later() -> None:
    for module, files in {
        "core/step.py": {"components/core/artifact.py", "components/core/graph/closure.py", "components/__init__.py"},
        "data/check.py": {"components/data/contracts/suites/raw.json", "components/data/contracts/expectations.py"},
        "execution/sandbox.py": {"components/execution/jail.py"},
        "tokens/foreign/weights.py": {"components/tokens/foreign/__init__.py"},
    }.items():
        assert files <= {path.as_posix() for path in closure(ROOT / "components" / module)}, module


def test_a_file_that_parameters_name_belongs_to_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suite = "components/evaluation/measures/suites/short_tasks.jsonl"
    config = defaults().clean.model_copy(
        update={"decontaminate": defaults().clean.decontaminate.model_copy(update={"suites": (suite, "mine.jsonl")})}
    )
    module, out = ROOT / "components" / "data" / "clean.py", tmp_path / "code" / "clean.json"
    seen = []
    for content in (None, b"one", b"two", b"two"):
        if content is not None:
            Path("mine.jsonl").write_bytes(content)
        reads.write(out, module, config.named_files)
        seen.append((json.loads(out.read_text())["mine.jsonl"], out.stat().st_mtime_ns))
    assert len({digest for digest, _ in seen}) == 3 and seen[0][0] == "absent"
    assert seen[2] == seen[3], "left alone while nothing changed"
    assert suite in json.loads(out.read_text())


def test_a_stage_that_does_not_depend_on_its_code_is_refused() -> None:
    survey.require_code(read_stages(ROOT))
    stage = dataclasses.replace(read_stages(ROOT)[2], dependencies=("data/checked",))
    with pytest.raises(ConfigError, match=r"stage clean does not depend on \.overnight/code/clean\.json; add it"):
        survey.require_code([stage])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "meta: {writes: raw_documents}|meta: {write: x}",
            r"stages\.ingest\.meta\.write is not a key; allowed: writes",
        ),
        (
            "meta: {survey: true}|meta: {survey: 1}",
            r"stages\.survey\.meta\.survey is wrong: input should be a valid",
        ),
        ("${ingest.opt_out}|reports/evaluation", r"ingest, .*, evaluate depend on each other in a circle"),
        ("    cmd: python -m components.data.ingest|    foreach: x", r"stages\.ingest\.cmd is wrong: field required"),
        ("stages:|steps:", "found no stages"),
    ],
)
def test_a_mistake_in_dvc_yaml_is_one_line(tmp_path: Path, change: str, said: str) -> None:
    old, new = change.split("|")
    text = (ROOT / "dvc.yaml").read_text()
    assert old in text
    (tmp_path / "dvc.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=rf"^dvc\.yaml: {said}") as caught:
        read_all(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_artifact_is_asked_for_by_its_kind() -> None:
    everything = read_stages(ROOT)
    assert stages.writer(everything, "base_model").name == "pretrain"
    assert stages.released(everything).name == "align"
    by_clock = [each.name for each in everything if each.meta.by_clock]
    assert by_clock == [name for name in STAGES if StageReserves().ends_by_clock(name)], "who plans time knows the same"
    for kind, who in (("poems", "no stage writes"), ("tokens", "tokenize, tokenize writes")):
        with pytest.raises(ConfigError, match=rf"{who} {kind}; needed one stage with `meta: \{{writes: {kind}\}}`"):
            stages.writer([*everything, *everything], kind)
    with pytest.raises(ConfigError, match="no stage makes the model to release"):
        stages.released(everything[:2])


def made(stage: Stage, run: dict[str, object]) -> None:
    """The artifact of a stage, as some code wrote it."""
    with artifact.create(
        stage.output, stage=stage.name, config=StepConfig(), inputs=(), code=ROOT / stage.module_path
    ) as draft:
        draft.run |= run


def test_what_runs_again_for_its_code_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    everything = read_stages(ROOT)
    for each in everything:
        made(each, {})
    assert runs_again(everything) is None
    code = code_of(ROOT / "components" / "data" / "clean.py")
    made(everything[2], {"code": code | {"components/data/cleaning/filters.py": "0", "components/data/gone.py": "0"}})
    assert runs_again(everything) == (
        "clean and 10 later stages run again: components/data/cleaning/filters.py, components/data/gone.py changed"
    )
    shutil.rmtree(everything[2].output)
    assert runs_again(everything) is None, "DVC restores it, or runs it for another reason"
    made(everything[-1], {"code": None})
    assert runs_again(everything) == (
        "evaluate runs again: its artifact does not say which code wrote it (an older layout)"
    )


def test_every_stage_has_a_section_and_so_have_release_and_serving() -> None:
    assert section_names() == [*STAGES, "release", "serving"]
    assert set(tree().model_fields) == set(section_names())


def test_params_as_committed_are_the_smoke_profile() -> None:
    assert (ROOT / "params.yaml").read_text() == compose("smoke", ROOT / "profiles")


def test_what_models_are_measured_on_is_looked_for_in_the_corpus() -> None:
    with pytest.raises(ConfigError) as caught:
        overridden(compose("smoke", ROOT / "profiles"), ["clean.decontaminate.suites=[other.jsonl]"])
    assert "clean.decontaminate.suites lacks components/evaluation/measures/suites/short_tasks.jsonl" in str(
        caught.value
    )
    assert "evaluate.functional.suites runs as short_tasks; add it there" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", profile_names(ROOT / "profiles"))
def test_profiles_compose(name: str) -> None:
    assert "\npretrain:\n" in compose(name, ROOT / "profiles")
