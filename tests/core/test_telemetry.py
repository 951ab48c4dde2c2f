"""No tool beneath reports home: the settings that each tool itself reads say so, in a fresh process."""

import os
import subprocess
import sys

import pytest

from components.core.graph.closure import ROOT
from components.core.telemetry import TELEMETRY_OFF

CHECKS = {
    "prefect": "from prefect.settings import get_current_settings as s; print(s().server.analytics_enabled)",
    # The pinned release holds no client that could report; a later one would bring this module back.
    "great_expectations": "from importlib.util import find_spec as f; print(bool(f('great_expectations.analytics')))",
    "mlflow": "from mlflow.telemetry.utils import is_telemetry_disabled as d; print(not d())",
    "ray": "from ray._common.usage.usage_lib import usage_stats_enabled as e; print(e())",
    "dvc": "from dvc.analytics import is_enabled as e; print(e())",
    "huggingface_hub": "from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY as d; print(not d)",
}


@pytest.mark.parametrize("tool", CHECKS)
def test_the_tool_itself_says_that_telemetry_is_off(tool: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in TELEMETRY_OFF}
    code = f"import components; {CHECKS[tool]}"
    done = subprocess.run([sys.executable, "-c", code], env=clean, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "False"


def test_dvc_is_silent_without_us_too() -> None:
    assert "analytics = false" in (ROOT / ".dvc" / "config").read_text()
