"""Our client: several requests at a time, each whole reply kept."""

import tempfile
from pathlib import Path

from benchmarks.alignment.judge_biases import measure
from benchmarks.harness import Outcome
from components.inference.endpoint import ChatEndpoint
from components.inference.replies import REPLIES, ReplyCache


def run(folder: Path) -> Outcome:
    """Verdicts a second, both orders of a pair in one."""
    with tempfile.TemporaryDirectory() as state:  # new in each run: none finds the replies of another
        cache = ReplyCache(Path(state) / "state" / REPLIES)
        return measure(lambda url, model: ChatEndpoint(url, model, "run the bench again", cache=cache))
