"""What so many seconds of fine-tuning teach a base model, and what they cost it, by what replay asks for.

    python -m benchmarks.alignment.teaching WORKSPACE --seconds 90 --items 400 --seeds 0 1 2

Reads models/base and data/tokens of a workspace where `overnight cycle --until pretrain` has run. Each run takes the
seconds of CPU of one thread, whatever else the machine does. Asked are tasks of the curriculum, greedily: learned
compositions in wordings that are never learned, and compositions that are never learned. A run that is in the report
already is not repeated.
Not covered: the corpus's functions, which the stage mixes in; validation by anything but bits per byte.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import PreTrainedModel

from components.alignment.config import ReplayConfig, SftConfig
from components.alignment.curriculum.levels import LEVELS
from components.alignment.curriculum.tasks import Task, tasks
from components.alignment.examples.chat import Conversation, conversation_tokens, prompt_tokens, stop_ids
from components.alignment.examples.instruction import Instruction
from components.alignment.objectives import tuning
from components.alignment.objectives.anchored_loss import loss_of
from components.alignment.objectives.engine_tuning import recipe_of, trainer_of
from components.alignment.rewards.verifier import Tier, verify
from components.alignment.sft import batches_of
from components.core.figures.intervals import wilson
from components.inference.engine import Sampling
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec
from components.tokens.shards.token_store import TokenStore
from components.training.engine.validation import bits_per_byte, nats

REPLAYS = {
    "anchored": ReplayConfig(),
    "tokens": ReplayConfig(share=0.6, anchor=0.0),
    "none": ReplayConfig(share=0.0),
}
LEARNED = ("operator", "builtin", "composition")
NUM_LEARNED = 4000
VALIDATION_DOCUMENTS, VALIDATION_BYTES = 40, 20_000
REPORT = Path("reports/bench/teaching.json")


def drawn(items: int) -> dict[str, list[Task]]:
    """Tasks to learn, and those that are asked, the same in every run."""
    limits = {"tuning": NUM_LEARNED, "paraphrase": items, "composition": items}
    chosen: dict[str, list[Task]] = {use: [] for use in limits}
    for task in tasks([each for each in LEVELS if each in LEARNED], 0):
        if task.use in chosen and len(chosen[task.use]) < limits[task.use]:
            chosen[task.use].append(task)
        if all(len(chosen[use]) == limit for use, limit in limits.items()):
            break
    return chosen


def tuned(config: SftConfig, workspace: Path, learned: Sequence[Task], seconds: float) -> tuple[PreTrainedModel, int]:
    """The base after so many seconds of CPU, and the steps that they were enough for."""
    base, codec = workspace / "models" / "base", TextCodec(workspace / "models" / "base")
    conversations = []
    for task in learned:
        messages = [("user", codec.encode(task.prompt)), ("assistant", codec.encode(task.answer))]
        ids, said = conversation_tokens(messages, special=codec.special)
        conversations.append(Conversation(ids=np.array(ids, np.int32), said=np.array(said), source=task.level))
    batches = batches_of(config, conversations, {}, workspace / "data" / "tokens", codec)
    model = tuning.load_model(base)
    loss = loss_of(config, model, base) if batches.replayed else None
    trainer = trainer_of(model, recipe_of(config, compiled=False), print, loss)
    started, step = time.process_time(), 0
    while (gone := (time.process_time() - started) / seconds) < 1:
        trainer.accumulate(step, batches(step))
        trainer.update(step, max(0.01, min(1.0, gone / config.warmup_fraction) * (1 - gone)))
        step += 1
    return model.float().eval(), step


def held_out_bits(model: PreTrainedModel, workspace: Path) -> float:
    """Bits per byte of the first held-out documents that are not long."""
    tokens = workspace / "data" / "tokens"
    store = TokenStore(tokens, "validation")
    sizes = pl.read_parquet(tokens / "validation.documents.parquet")["bytes"].to_list()[:VALIDATION_DOCUMENTS]
    chosen = [number for number, size in enumerate(sizes) if size < VALIDATION_BYTES]
    end = TextCodec(workspace / "models" / "base").special.end_of_text
    documents = [store.document(each) for each in chosen]
    context = int(model.config.max_position_embeddings)
    return bits_per_byte(nats(model, documents, context, end, "cpu"), sum(sizes[each] for each in chosen))


def asked(model: PreTrainedModel, workspace: Path, questions: Sequence[Task]) -> dict[str, Any]:
    """How many greedy answers end, and how many pass."""
    base, codec = workspace / "models" / "base", TextCodec(workspace / "models" / "base")
    with tempfile.TemporaryDirectory() as folder:
        tuning.save_model(model, base, Path(folder))
        engine = open_engine(Path(folder), cache=Path(folder) / "engines")
        prompts = [prompt_tokens(codec.encode(each.prompt), special=codec.special) for each in questions]
        answers = engine.generate(prompts, Sampling(max_new_tokens=64), stop_ids=stop_ids(codec.special))
        engine.close()
    instructions = [
        Instruction(name=each.name, prompt=each.prompt, answer=each.answer, examples=each.examples)
        for each in questions
    ]
    texts = [codec.decode(row[0].tokens) for row in answers]
    verdicts, _ = verify(
        list(zip(instructions, texts, strict=True)), timeout_seconds=2.0, memory_bytes=2**28, explain=False
    )
    passed = sum(each.tier == Tier.PASSES for each in verdicts)
    interval = wilson(passed / len(questions), len(questions), 0.95)
    ended = sum(row[0].stop_id is not None for row in answers)
    return {"passed": passed / len(questions), "low": interval.low, "high": interval.high, "n": len(questions)} | {
        "ended": ended / len(questions)
    }


def main() -> None:
    """Print a line for each run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--replay", nargs="+", choices=REPLAYS, default=[*REPLAYS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = drawn(options.items)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(REPORT.read_bytes()) if REPORT.exists() else []
    before = held_out_bits(tuning.load_model(options.workspace / "models" / "base").eval(), options.workspace)
    for seed in options.seeds:
        for name in options.replay:
            key = {"replay": name, "seed": seed, "seconds": options.seconds, "items": options.items}
            if any(key.items() <= row.items() for row in rows):
                continue
            config = SftConfig(replay=REPLAYS[name], seed=seed)
            model, steps = tuned(config, options.workspace, chosen["tuning"], options.seconds)
            bits = held_out_bits(model, options.workspace)
            figures = {use: asked(model, options.workspace, chosen[use]) for use in ("paraphrase", "composition")}
            rows.append({**key, "steps": steps, "bits_before": before, "bits": bits, **figures})
            REPORT.write_text(json.dumps(rows, indent=1) + "\n")
            said = ", ".join(
                f"{use} {each['passed']:.3f} ({each['low']:.3f} to {each['high']:.3f}), ends {each['ended']:.3f}"
                for use, each in figures.items()
            )
            print(f"{name} seed {seed}: {steps} steps, bits per byte {bits / before - 1:+.2%}, {said}", flush=True)


if __name__ == "__main__":
    main()
