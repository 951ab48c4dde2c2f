"""dvc.yaml is the only list of stages, and each stage's cache key holds all the code that the stage runs."""

import pytest

from components.core.closure import ROOT, closure
from components.core.errors import ConfigError
from flows.graph import missing_dependencies, read_graph, require_dependencies
from flows.params import Params, compose, overridden, profile_names

STAGES = [
    "ingest",
    "check_raw",
    "clean",
    "check_clean",
    "vocabulary",
    "tokenize",
    "plan",
    "pretrain",
    "sft",
    "preferences",
    "align",
    "evaluate",
]


# Files that a stage's parameters name, not its code.
SUITES = set(Params().clean.decontaminate.suites)


def test_stages_come_after_what_they_depend_on() -> None:
    stages = read_graph(ROOT)
    assert [each.name for each in stages] == STAGES
    written: set[str] = set()
    for each in stages:
        artifacts = {path for path in each.dependencies if path.startswith(("data/", "models/", "reports/"))}
        assert artifacts <= written, f"{each.name} reads {artifacts - written} before it is written"
        written |= {path.as_posix() for path in each.outputs}


@pytest.mark.parametrize("name", STAGES)
def test_cache_key_holds_the_code(name: str) -> None:
    stage = next(each for each in read_graph(ROOT) if each.name == name)
    missing = missing_dependencies(stage)
    lines = "\n".join(f"      - {path}" for path in missing)
    assert not missing, f"add to deps of stage {name} in dvc.yaml:\n{lines}"
    code = {path for path in stage.dependencies if path.startswith("components/")} - SUITES
    extra = code - {path.as_posix() for path in closure(stage.module_path)}
    assert not extra, f"stage {name} in dvc.yaml depends on code that it does not import: {sorted(extra)}"


def test_closure_follows_imports_of_imports() -> None:
    found = {path.as_posix() for path in closure(ROOT / "components" / "core" / "step.py")}
    assert {"components/core/step.py", "components/core/artifact.py", "components/core/closure.py"} <= found
    assert "components/__init__.py" in found


def test_closure_holds_the_files_that_code_reads_beside_itself() -> None:
    found = {path.as_posix() for path in closure(ROOT / "components" / "data" / "check.py")}
    assert {"components/data/suites/raw.json", "components/data/suites/clean.json"} <= found
    assert "components/execution/jail.py" in {
        path.as_posix() for path in closure(ROOT / "components" / "execution" / "sandbox.py")
    }


def test_every_stage_has_a_section_and_so_have_release_and_serving() -> None:
    assert set(Params.model_fields) == {*STAGES, "release", "serving"}


def test_params_as_committed_are_the_smoke_profile() -> None:
    assert (ROOT / "params.yaml").read_text() == compose("smoke", ROOT / "profiles")


def test_what_models_are_measured_on_is_looked_for_in_the_corpus() -> None:
    with pytest.raises(ConfigError) as caught:
        overridden(compose("smoke", ROOT / "profiles"), ["clean.decontaminate.suites=[other.jsonl]"])
    assert "clean.decontaminate.suites lacks components/evaluation/suites/short_tasks.jsonl" in str(caught.value)
    assert "evaluate.functional.suites runs as short_tasks; add it there" in str(caught.value)
    assert "\n" not in str(caught.value)
    stages = read_graph(ROOT)
    require_dependencies(stages, "clean", sorted(SUITES))
    with pytest.raises(ConfigError, match=r"stage clean reads my/suite\.jsonl and does not depend on it; add it"):
        require_dependencies(stages, "clean", ["my/suite.jsonl"])


@pytest.mark.parametrize("name", profile_names(ROOT / "profiles"))
def test_profiles_compose(name: str) -> None:
    assert "\npretrain:\n" in compose(name, ROOT / "profiles")


def test_closure_holds_what_is_loaded_when_it_is_needed() -> None:
    found = {path.as_posix() for path in closure(ROOT / "components" / "data" / "contract.py")}
    assert "components/data/expectations.py" in found
