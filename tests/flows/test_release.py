"""A commit by hand is followed at once where the gateway here serves that environment, and nowhere else."""

from pathlib import Path

import pytest

from components.core.config import Settings
from components.core.errors import OvernightError
from flows import release
from flows.running.params import Params


def test_a_commit_to_an_environment_that_is_served_elsewhere_leaves_the_gateway_alone(tmp_path: Path) -> None:
    away = Settings(state=tmp_path, ray_address="127.0.0.1:9")  # whoever looks for it is told so
    params = Params()
    assert params.release.environment == "production"
    assert release._follow(away, "staging", params, "c" * 40) is None
    with pytest.raises(OvernightError, match=r"committed cccccccccccc, but serving does not follow yet: .*nothing"):
        release._follow(away, "production", params, "c" * 40)
