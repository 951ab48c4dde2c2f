"""What each way to align gives the same fine-tuned model in the same seconds: tasks that pass, greedily and in eight.

    python -m benchmarks.alignment.methods WORKSPACE --seconds 90 --items 400 --seeds 0 1 2

Reads models/sft, data/tokens, data/instructions and data/preferences of a workspace where `overnight cycle --until
preferences` has run. The seconds that making the pairs took are taken off dpo's. Held out are tasks of the curriculum
in wordings, and of compositions, that are never learned. Against the fine-tuned model, item by item: the exact test of
McNemar, with Holm's correction over methods and seeds. A run that is in the report already is not repeated.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from benchmarks.alignment.teaching import drawn, held_out_bits
from components.alignment.align import objective_of
from components.alignment.config import AlignConfig, PolicyConfig
from components.alignment.curriculum.tasks import Task
from components.alignment.examples.chat import prompt_tokens, stop_ids
from components.alignment.examples.instruction import Instruction
from components.alignment.objectives import tuning
from components.alignment.objectives.objective import Setting
from components.alignment.rewards.verifier import Tier, verify
from components.core import artifact
from components.core.events import Events
from components.deadline.budget import Budget
from components.evaluation.comparison.differences import Difference, difference, holm
from components.evaluation.comparison.pairs import Paired
from components.inference.engine import Sampling
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec

EPOCHS = 1000.0  # the clock ends every method
METHODS: dict[str, AlignConfig] = {
    "dpo": AlignConfig(method="dpo", max_epochs=EPOCHS),
    "rejection_sampling": AlignConfig(method="rejection_sampling", max_epochs=EPOCHS),
    "group": AlignConfig(method="policy", max_epochs=EPOCHS),
    "leave_one_out": AlignConfig(method="policy", max_epochs=EPOCHS, policy=PolicyConfig(advantage="leave_one_out")),
    "gae": AlignConfig(method="policy", max_epochs=EPOCHS, policy=PolicyConfig(advantage="gae", updates=2)),
}
SAMPLES = 8
REPORT = Path("reports/bench/methods.json")


def passes(model_dir: Path, codec: TextCodec, questions: Sequence[Task]) -> dict[str, NDArray[np.float64]]:
    """1 or 0 for each task: its greedy answer passes (`greedy`), one of eight sampled ones does (`eight`)."""
    prompts = [prompt_tokens(codec.encode(each.prompt), special=codec.special) for each in questions]
    samplings = {
        "greedy": Sampling(max_new_tokens=64),
        "eight": Sampling(max_new_tokens=64, temperature=0.8, num_samples=SAMPLES, seed=0),
    }
    with tempfile.TemporaryDirectory() as cache, closing(open_engine(model_dir, cache=Path(cache))) as engine:
        answered = {
            name: engine.generate(prompts, sampling, stop_ids=stop_ids(codec.special))
            for name, sampling in samplings.items()
        }
    results = {}
    for name, answers in answered.items():
        asked = [(place, codec.decode(each.tokens)) for place, row in enumerate(answers) for each in row]
        distinct = list(dict.fromkeys(asked))
        instructions = [
            Instruction(name=each.name, prompt=each.prompt, answer=each.answer, examples=each.examples)
            for each in questions
        ]
        verdicts, _ = verify(
            [(instructions[place], text) for place, text in distinct],
            timeout_seconds=2.0,
            memory_bytes=2**28,
            explain=False,
        )
        right = {place for (place, _), verdict in zip(distinct, verdicts, strict=True) if verdict.tier == Tier.PASSES}
        results[name] = np.array([float(place in right) for place in range(len(questions))])
    return results


def align(config: AlignConfig, workspace: Path, seconds: float) -> tuple[PreTrainedModel, int]:
    """The fine-tuned model after so many seconds of a method, and its steps."""
    sft, preferences = workspace / "models" / "sft", workspace / "data" / "preferences"
    codec = TextCodec(sft)
    objective = objective_of(config, preferences, workspace / "data" / "instructions", codec)
    if config.method == "dpo":
        seconds -= float(artifact.read(preferences, verify=False).run["seconds"])
    model = tuning.load_model(sft)
    with tempfile.TemporaryDirectory() as kept, tuning.own_cores():
        setting = Setting(
            sft=sft,
            tokens=workspace / "data" / "tokens",
            digest="",
            budget=Budget(seconds=seconds, started=time.monotonic()),
            checkpoints=Path(kept),
            out=Path(kept),
            events=Events("bench"),
        )
        steps = objective.learn(model, setting).steps
    return model.eval(), steps


def against(before: NDArray[np.float64], after: NDArray[np.float64]) -> Difference:
    """Of the same items."""
    return difference(
        Paired(differences=after - before, weights=np.ones(len(before)), shares=True), resamples=2000, seed=0
    )


def measured(model_dir: Path, workspace: Path, items: int) -> dict[str, list[float]]:
    """Which of the held-out tasks pass, wordings before compositions."""
    chosen = drawn(items)
    codec = TextCodec(workspace / "models" / "sft")
    found = passes(model_dir, codec, [*chosen["paraphrase"], *chosen["composition"]])
    return {name: each.tolist() for name, each in found.items()}


def main() -> None:
    """Run what is not in the report, and print a line for each method and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    options = parser.parse_args()
    sft = options.workspace / "models" / "sft"
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(REPORT.read_bytes()) if REPORT.exists() else []
    todo = [("sft", 0), *((method, seed) for seed in options.seeds for method in options.methods)]
    for method, seed in todo:
        key = {"method": method, "seed": seed, "items": options.items, "seconds": options.seconds}
        if any(key.items() <= row.items() for row in rows):
            continue
        with tempfile.TemporaryDirectory() as folder:
            directory, model, steps = sft, tuning.load_model(sft).eval(), 0
            if method != "sft":
                config = METHODS[method].model_copy(update={"seed": seed})
                model, steps = align(config, options.workspace, options.seconds)
                directory = Path(folder)
                tuning.save_model(model, sft, directory)
            bits = held_out_bits(model, options.workspace)
            rows.append({**key, "steps": steps, "bits": bits, **measured(directory, options.workspace, options.items)})
        REPORT.write_text(json.dumps(rows) + "\n")
        print(f"{method} seed {seed}: {steps} steps, greedy {np.mean(rows[-1]['greedy']):.3f}", flush=True)
    compare([row for row in rows if row["items"] == options.items and row["seconds"] == options.seconds])


def compare(rows: Sequence[dict[str, Any]]) -> None:
    """Print what each run gave over the fine-tuned model."""
    before = next(row for row in rows if row["method"] == "sft")
    runs = [row for row in rows if row["method"] != "sft"]
    gains = [against(np.array(before["greedy"]), np.array(row["greedy"])) for row in runs]
    adjusted = holm(np.array([each.p_not_above(0.0) for each in gains]))
    print(f"sft: greedy {np.mean(before['greedy']):.3f}, in eight {np.mean(before['eight']):.3f}")
    for row, gain, p_value in zip(runs, gains, adjusted.tolist(), strict=True):
        eight = np.mean(row["eight"]) - np.mean(before["eight"])
        print(
            f"{row['method']:20} seed {row['seed']}: {row['steps']:5} steps, greedy {gain.mean:+.3f} "
            f"({gain.low(0.975):+.3f} to {gain.high(0.975):+.3f}), p {p_value:.4f}, in eight {eight:+.3f}, "
            f"bits per byte {row['bits'] / before['bits'] - 1:+.2%}"
        )


if __name__ == "__main__":
    main()
