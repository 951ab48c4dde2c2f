"""What a cycle refuses before its first stage: an architecture that later stages or the objectives cannot take."""

from collections.abc import Sequence

import pytest
from ruamel.yaml import YAML

from components.core.errors import ConfigError
from components.core.graph.stages import read_stages
from flows.cycle import require_chat
from flows.running import graph, params

ASKED = {
    "modernbert": ["pretrain.objectives.infill.rate=0", "pretrain.objectives.masked.rate=1"],
    "t5": ["pretrain.objectives.infill.rate=0", "pretrain.objectives.denoise_r.rate=1"],
    "bamba": ["pretrain.objectives.isolate_documents=false"],
    "mixtral": [],
}


def asked(architecture: str, changes: Sequence[str]) -> params.Params:
    """params.yaml of the smoke profile with an architecture and what it needs."""
    text = params.overridden(params.compose("smoke"), [f"plan.architecture={architecture}", *changes])
    return params.checked(YAML(typ="safe").load(text), "params.yaml")


@pytest.mark.parametrize("architecture", ASKED)
def test_an_architecture_without_chat_runs_until_pretrain(architecture: str) -> None:
    stages, given = read_stages(), asked(architecture, ASKED[architecture])
    require_chat(graph.stages_until(stages, "pretrain"), given)
    if architecture in ("modernbert", "t5"):
        with pytest.raises(
            ConfigError, match=f"plan.architecture {architecture} has no chat: run with --until pretrain"
        ):
            require_chat(stages, given)
    else:
        require_chat(stages, given)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("modernbert", r"pretrain\.objectives asks an encoder for infill .*set masked\.rate to 1"),
        ("bamba", r"bamba passes a state from token to token, .*isolate_documents to false"),
    ],
)
def test_what_an_architecture_cannot_be_asked_is_said_at_once(architecture: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(architecture, [])
