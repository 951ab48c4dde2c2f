"""The stage with a judge behind an endpoint: real sampling, a scripted judge, and what is left when it goes away."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.alignment import preferences
from components.alignment.config import PreferencesConfig
from components.core.artifact import Manifest
from components.core.errors import ConfigError, OvernightError
from components.inference import endpoint
from tests.alignment.rewards.scripted_judge import better, shown_in
from tests.inference.chat_server import Response, chat_server

CONFIG = PreferencesConfig(max_prompts=40, max_new_tokens=24, chunk_prompts=20, num_samples=1, require_compiling=False)
KEY = "sk-secret-123"

pytestmark = pytest.mark.usefixtures("stages")  # whose model answers, and ends some of its answers


def run(world: Path, out: Path, **changes: object) -> Manifest:
    paths = {name: world / name for name in ("instructions", "plan")}
    return preferences.run(CONFIG.model_copy(update=changes), sft=world / "sft", **paths, out=out)


def prefers_more_letters(body: dict[str, Any]) -> str:
    shown = shown_in(body)
    return better(shown, is_a=(sum(map(str.isalpha, shown.a)), shown.a) > (sum(map(str.isalpha, shown.b)), shown.b))


@pytest.fixture
def name_judge(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setenv("OVERNIGHT_JUDGE_KEY", KEY)
    return lambda server: monkeypatch.setenv("OVERNIGHT_JUDGE_URL", server.url)


def test_a_judge_that_goes_away_is_one_line_and_a_rerun_asks_only_the_rest(
    world: Path, tmp_path: Path, name_judge: Any
) -> None:
    left = 5

    def script(body: dict[str, Any]) -> str | Response:
        nonlocal left
        left -= 1
        return prefers_more_letters(body) if left >= 0 else Response(status=503)

    with chat_server(script) as server:
        name_judge(server)
        with pytest.raises(OvernightError, match=r"judge at .*status 503 after 5 of .* which are kept") as caught:
            run(world, tmp_path / "out")
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
        left = 10_000
        before = len(server.requests)
        manifest = run(world, tmp_path / "out")
        asked = len(server.requests) - before
        again = run(world, tmp_path / "again")
        assert len(server.requests) == before + asked, "the third run asks nothing"
    assert manifest.run["judges"]["new_replies"] == asked and manifest.run["judges"]["kept_replies"] == 5
    assert again.digest == manifest.digest, "what is kept gives the same artifact"
    _check(world, tmp_path / "out", manifest)


def _check(world: Path, out: Path, manifest: Manifest) -> None:
    """The pairs are as the judge said, and nothing of it holds the key."""
    pairs = pl.read_parquet(out / "preferences.parquet")
    judged = pairs.filter(pl.col("reason").str.starts_with("judge"))
    assert judged.height > 3
    for chosen, rejected, score, other in judged[["chosen", "rejected", "chosen_score", "rejected_score"]].iter_rows():
        assert (sum(map(str.isalpha, chosen)), chosen) > (sum(map(str.isalpha, rejected)), rejected)
        assert (score, other) == (0.5 + 0.375, 0.5 - 0.375), "grade 3 of 4"
    (figures,) = json.loads((out / "judges.json").read_text())["judges"]
    assert figures["judge"] == "endpoint:judge" == manifest.statistics["judges"][0]
    assert figures["outcomes"]["preferred"] == figures["pairs"] > 0
    assert figures["position_bias"]["value"] == 0.5
    assert all(KEY.encode() not in path.read_bytes() for path in out.iterdir())


def test_a_judge_that_prefers_what_comes_first_makes_no_pair(world: Path, tmp_path: Path, name_judge: Any) -> None:
    with chat_server(lambda body: better(shown_in(body), is_a=True)) as server:
        name_judge(server)
        manifest = run(world, tmp_path / "out")
        with pytest.raises(OvernightError, match=r"no judge is left: .* inconsistent.*position 1\.00"):
            run(world, tmp_path / "alone", judges=("endpoint",))
    (figures,) = json.loads((tmp_path / "out" / "judges.json").read_text())["judges"]
    assert figures["position_bias"]["value"] == 1 and figures["outcomes"]["preferred"] == 0
    assert "judges" not in manifest.statistics["decided_by"]
    assert not any(reason.startswith("judge") for reason in manifest.statistics["pairs_by_reason"])


def test_revisions_are_candidates_of_the_model_that_wrote_them(world: Path, tmp_path: Path, name_judge: Any) -> None:
    def script(body: dict[str, Any]) -> str:
        question = body["messages"][1]["content"]
        if "answer A" in question:
            return prefers_more_letters(body)
        return "It returns nothing." if "Principle:" in question else "    return sum([a, b])"

    with chat_server(script) as server:
        name_judge(server)
        run(world, tmp_path / "out", revise=1)
    candidates = pl.read_parquet(tmp_path / "out" / "candidates.parquet")
    revised = candidates.filter(pl.col("author") == "judge")
    assert revised.height == CONFIG.max_prompts == candidates["prompt"].n_unique()
    assert set(revised["answer"]) == {"    return sum([a, b])"}
    (figures,) = json.loads((tmp_path / "out" / "judges.json").read_text())["judges"]
    assert figures["self_bias"]["n"] > 0


def test_the_model_itself_can_be_asked_in_words(world: Path, tmp_path: Path) -> None:
    manifest = run(world, tmp_path / "out", judges=("verifier", "generation", "likelihood"), max_prompts=3)
    generation, likelihood = json.loads((tmp_path / "out" / "judges.json").read_text())["judges"]
    assert generation["judge"] == "generation" and likelihood["position_bias"]["value"] == 0.5
    assert sum(generation["outcomes"].values()) == generation["pairs"] == likelihood["pairs"]
    assert manifest.run["judges"] is None, "no endpoint was asked"


def test_an_endpoint_that_is_nowhere_is_one_line(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"preferences\.judges has endpoint and OVERNIGHT_JUDGE_URL is not set"):
        run(world, tmp_path / "out", judges=("endpoint",))


def test_judges_are_named_once() -> None:
    with pytest.raises(ValueError, match="different ones"):
        PreferencesConfig(judges=("verifier", "verifier"))
