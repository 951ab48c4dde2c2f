"""From a model directory to a commit: what each decision leaves behind, with a real MLflow and a real Git."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from components.core import artifact
from components.core.config import Settings
from components.core.errors import OvernightError
from components.evaluation.comparison.criteria import Criteria, Guard, Primary
from components.evaluation.comparison.pairs import Paired
from components.release import environment, registry
from components.release.config import ReleaseConfig
from components.release.release import Evidence, ReleaseResult, promote, release

MakeModel = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own

CONFIG = ReleaseConfig(
    min_parse_share=0.1,
    criteria=Criteria(
        primaries=(Primary(metric="likelihood/bits_per_byte", better="lower"),),
        guards=(Guard(metric="completion/parse_share", better="higher", margin=0.05),),
    ),
)
FIGURES = {"bits_per_byte": 1.6, "xz_bits_per_byte": 1.9, "parse_share": 0.4}


def nobody(champion: Path) -> Mapping[str, Paired]:
    raise AssertionError(f"{champion} was measured without need")


def better_by(bits: float) -> Callable[[Path], Mapping[str, Paired]]:
    """Pairs with a champion whose files must be whole."""

    def against(champion: Path) -> Mapping[str, Paired]:
        artifact.read(champion)
        noise = np.linspace(-0.1, 0.1, 100)
        pairs = {"likelihood/bits_per_byte": noise - bits, "completion/parse_share": np.zeros(100)}
        return {
            name: Paired(differences=values, weights=np.ones(100), shares="share" in name)
            for name, values in pairs.items()
        }

    return against


def evidence(against: Callable[[Path], Mapping[str, Paired]], **changes: float) -> Evidence:
    figures = {**FIGURES, **changes}
    return Evidence(figures=figures, metrics={"likelihood.bits_per_byte": figures["bits_per_byte"]}, against=against)


def first(settings: Settings, make_model: MakeModel) -> ReleaseResult:
    return release(
        settings, "production", CONFIG, model_dir=make_model("one"), evidence=evidence(nobody), tags={"cycle": "c-1"}
    )


def versions(settings: Settings) -> list[int]:
    return [each.version for each in environment.read(settings, "production", CONFIG).file.versions]


def test_the_first_model_is_committed_with_reasons_and_card(settings: Settings, make_model: MakeModel) -> None:
    result = first(settings, make_model)
    assert (result.decision, result.version, versions(settings)) == ("promote", 1, [1])
    (newest, _) = environment.history(settings, "production", CONFIG)
    assert newest.commit == result.environment_commit
    assert "0.842 of the 1.900 of xz" in newest.body and "cycle: c-1" in newest.body
    card = subprocess.run(
        ["git", "-C", settings.state / "environments.git", "show", "main:cards/1.md"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert f"Digest `{result.digest}`" in card and "Decision: **promote**" in card and "| 1.6 |" in card
    assert registry.get(settings, 1).tags["gate"] == "promote"


def test_releasing_again_changes_nothing(settings: Settings, make_model: MakeModel) -> None:
    before = first(settings, make_model)
    again = first(settings, make_model)
    assert again.decision == "already_live"
    assert (again.version, again.environment_commit) == (before.version, before.environment_commit)
    assert len(environment.history(settings, "production", CONFIG)) == 2


@pytest.mark.parametrize(
    ("bits", "decision", "live"),
    [(0.1, "promote", [2]), (-0.1, "refuse", [1]), (-0.005, "not_enough_evidence", [1])],
)
def test_a_challenger(settings: Settings, make_model: MakeModel, bits: float, decision: str, live: list[int]) -> None:
    first(settings, make_model)
    result = release(settings, "production", CONFIG, model_dir=make_model("two"), evidence=evidence(better_by(bits)))
    assert (result.decision, result.version, versions(settings)) == (decision, 2, live)
    assert (result.environment_commit is None) == (decision != "promote")
    assert registry.get(settings, 2).tags["gate"] == decision


def test_every_look_at_a_candidate_costs_evidence(settings: Settings, make_model: MakeModel) -> None:
    """Bounds widen from 97.5 % to 99.2 % with the second look at one candidate; another candidate begins anew."""
    first(settings, make_model)
    for name, look, confidence in (("two", "1", "97.5%"), ("two", "2", "99.2%"), ("three", "1", "97.5%")):
        result = release(
            settings, "production", CONFIG, model_dir=make_model(name), evidence=evidence(better_by(0.005))
        )
        assert result.decision == "not_enough_evidence"
        assert confidence in result.reasons[0]
        assert registry.get(settings, result.version).tags["gate_looks"] == look


def test_below_the_absolute_gate_no_champion_is_measured(settings: Settings, make_model: MakeModel) -> None:
    first(settings, make_model)
    result = release(
        settings, "production", CONFIG, model_dir=make_model("two"), evidence=evidence(nobody, bits_per_byte=1.89)
    )
    assert result.decision == "refuse" and "needed at most 0.950" in result.reasons[0]
    assert "first model" not in " ".join(result.reasons)


def test_a_decision_about_yesterday_s_champion_is_not_committed(settings: Settings, make_model: MakeModel) -> None:
    first(settings, make_model)
    registry.register(settings, make_model("three"), tags={}, metrics={})

    def meanwhile(champion: Path) -> Mapping[str, Paired]:
        promote(settings, "production", CONFIG, version=2)
        return better_by(0.1)(champion)

    with pytest.raises(OvernightError, match=r"production was changed by .* run the release again"):
        release(settings, "production", CONFIG, model_dir=make_model("two"), evidence=evidence(meanwhile))
    assert versions(settings) == [2]


def test_mlflow_down_commits_nothing(settings: Settings, make_model: MakeModel) -> None:
    away = settings.model_copy(update={"mlflow_url": "http://127.0.0.1:9"})
    with pytest.raises(OvernightError, match="nothing was registered or promoted"):
        first(away, make_model)
    assert versions(settings) == []


def test_promote_and_rollback_by_hand(settings: Settings, make_model: MakeModel) -> None:
    first(settings, make_model)
    release(settings, "production", CONFIG, model_dir=make_model("two"), evidence=evidence(better_by(-0.1)))
    result = promote(settings, "production", CONFIG, version=2)
    assert result.decision == "promote" and "refuse" in result.reasons[0] and versions(settings) == [2]
    assert promote(settings, "production", CONFIG, version=2).decision == "already_live"
    assert [
        each.version for each in environment.rollback(settings, "production", CONFIG, reason="by hand").file.versions
    ] == [1]
    with pytest.raises(OvernightError, match="version 9 of overnight is not registered; registered: 1, 2"):
        promote(settings, "production", CONFIG, version=9)
