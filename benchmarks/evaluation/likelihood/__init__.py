"""Log-likelihood of continuations given their contexts, and of whole texts: ours against lm-eval's backend `hf`.

Both are given the same texts and tokenize them inside the time. Contexts of 20 to 160 tokens with continuations of 4 to
48; texts of 32 to 240 tokens, from <|endoftext|> on, as lm-eval's rolling likelihood reads what fits into the context.
float32 on both sides, as many threads as there are cores; lm-eval at the best of its batch sizes.
"""

import importlib
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison

COMPARISON = Comparison(name="likelihood", unit="tokens/s", peers={"lm_eval": 2.0})
ITEMS = "items.json"
# Of a log-likelihood: absolute, in nats, or relative to it where that is more.
TOLERANCE = 1e-4


def prepare(folder: Path) -> None:
    """Write model/ and items.json."""
    importlib.import_module("benchmarks.evaluation.likelihood.given").prepare(folder)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError where a score differs by more than the tolerance."""
    pairs = list(zip(ours["scores"], peer["scores"], strict=True))
    differences = [abs(mine - theirs) / max(1.0, abs(theirs)) for mine, theirs in pairs]
    if not all(each <= TOLERANCE for each in differences):  # as it stands, also for what is not a number
        raise ValueError(f"scores differ by up to {max(differences):.2e} of their size, allowed {TOLERANCE:.0e}")
    return {
        "items": len(pairs),
        "largest_difference": float(f"{max(differences):.2e}"),
        "largest_difference_nats": float(f"{max(abs(mine - theirs) for mine, theirs in pairs):.2e}"),
        "engine": ours["engine"],
        "lm_eval_batch_size": peer["batch_size"],
        "lm_eval_figures": peer["figures"],
        "threads": [ours["threads"], peer["threads"]],
    }
