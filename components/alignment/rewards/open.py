"""The judges that the parameters and the settings name."""

from dataclasses import asdict, dataclass
from typing import Any

from components.alignment.config import PreferencesConfig
from components.alignment.rewards.chat_judge import ComparingJudge
from components.alignment.rewards.constitution import Constitution
from components.alignment.rewards.ensemble import Ensemble
from components.alignment.rewards.judge import PairwiseJudge
from components.alignment.rewards.model_judge import LikelihoodJudge, LocalChat
from components.alignment.rewards.verifier import VerifierJudge
from components.core.config import read_settings
from components.core.errors import ConfigError
from components.inference.endpoint import Chat, ChatEndpoint
from components.inference.engine import Engine
from components.tokens.encoding.codec import TextCodec

ADVICE = "name others in preferences.judges or unset OVERNIGHT_JUDGE_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """Who compares answers, who proposes what to compare, who revises, and the endpoint where there is one."""

    ensemble: Ensemble
    likelihood: LikelihoodJudge
    reviser: Chat
    endpoint: ChatEndpoint | None

    @property
    def usage(self) -> dict[str, Any] | None:
        """What was asked of the endpoint, what it cost included; not the same in a second run."""
        return None if self.endpoint is None else asdict(self.endpoint.usage)

    @property
    def tokens(self) -> dict[str, int] | None:
        """What the endpoint read and wrote, kept replies included: the same in a second run."""
        if self.endpoint is None:
            return None
        usage = self.endpoint.usage
        return {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}


def open_judges(config: PreferencesConfig, constitution: Constitution, engine: Engine, codec: TextCodec) -> Judges:
    """The judges of `config.judges`; where that is null the verifier, and the endpoint of the settings or else the
    likelihood under the model itself. Raises ConfigError for an endpoint that the settings do not name.
    """
    endpoint = ChatEndpoint.of_settings(read_settings(), ADVICE)
    local = LocalChat(engine, codec)
    likelihood = LikelihoodJudge(
        engine, codec, constitution, context_tokens=engine.context_tokens, min_gap=config.min_score_gap
    )
    names = config.judges or ("verifier", "likelihood" if endpoint is None else "endpoint")
    judges: list[PairwiseJudge] = []
    for name in names:
        if name == "likelihood":
            judges.append(likelihood)
        elif name == "generation":
            judges.append(ComparingJudge(local, constitution))
        elif name == "endpoint":
            if endpoint is None:
                raise ConfigError(
                    "preferences.judges has endpoint and OVERNIGHT_JUDGE_URL is not set; set it to the address of an "
                    "OpenAI-compatible API, or take another judge"
                )
            judges.append(ComparingJudge(endpoint, constitution))
    ensemble = Ensemble(
        judges,
        VerifierJudge(constitution),
        min_agreement=config.min_agreement,
        verifier_decides="verifier" in names,
    )
    return Judges(ensemble=ensemble, likelihood=likelihood, reviser=endpoint or local, endpoint=endpoint)
