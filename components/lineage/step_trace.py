"""`overnight trace --step N`: what pretraining read at a step, document by document, those first that add most to loss.

The batch is computed again (components.lineage.recompute, which brings torch and is loaded only here), its loss with
the final weights; where the step met a spike, what was lost then stands beside it.
"""

import importlib
import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.core.errors import DataError
from components.core.graph.stages import Stage
from components.lineage import documents
from components.lineage.chain import Held, in_directory
from components.lineage.document_trace import not_there, stages_by_kind

Record = dict[str, Any]
NEEDED = ("tokenizer", "tokens", "training_plan", "base_model")
RECORDS = "spikes.jsonl"
SHOWN = 20


def trace_step(step: int) -> Record:
    """All that is known of a step's batch. Raises DataError when what the model was made from is not here."""
    stages = stages_by_kind()
    held = {kind: here for kind, stage in stages.items() if (here := in_directory(stage.output)) is not None}
    _require(held, stages)
    tokenizer, tokens, plan, base = (stages[kind].output for kind in NEEDED)
    recompute = importlib.import_module("components.lineage.recompute")
    recomputation: Record = recompute.documents_of_step(step, tokens=tokens, tokenizer=tokenizer, plan=plan, base=base)
    recorded = [each for each in _records(held["base_model"]) if each["step"] == step]
    identities = {each["id"] for batch in (recomputation, *recorded) for each in batch["documents"]}
    known = documents.decisions(held.get("raw_documents"), held.get("clean_documents"), sorted(identities))
    spikes = [
        each | {"documents": [document | known[document["id"]] for document in each["documents"]]} for each in recorded
    ]
    return {
        "step": step,
        "batch": recomputation["batch"],
        "weights": f"{base} {held['base_model'].digest[:12]}",
        "loss": recomputation["loss"],
        "samples": recomputation["samples"],
        "documents": [each | known[each["id"]] for each in recomputation["documents"]],
        "spikes": spikes,
    }


def _require(held: dict[str, Held], stages: dict[str, Stage]) -> None:
    for kind in NEEDED:
        if kind not in held:
            raise DataError(not_there(stages[kind]))
    *inputs, base = NEEDED
    made_from = {each.stage: each.digest for each in held[base].manifest.inputs}
    for kind in inputs:
        digest = made_from.get(stages[kind].name, "none")
        if digest != held[kind].digest:
            raise DataError(
                f"{stages[base].output}: was made from another {stages[kind].output} ({digest[:12]}) than lies here "
                f"({held[kind].digest[:12]}); `dvc checkout` brings those that belong together"
            )


def _records(base: Held) -> list[Record]:
    """What the run recorded of its spikes; nothing where it is of a version that did not."""
    path = base.files.get(RECORDS)
    return [json.loads(line) for line in path.read_text().splitlines()] if path else []


def show(answer: Record, target: Console) -> None:
    """The step's documents as a table, below what was recorded of a spike."""
    for spike in answer["spikes"]:
        target.print(Text(_spike(spike)))
        target.print(_table(spike["documents"]))
        target.print(Text(""))
    target.print(
        Text(
            f"step {answer['step']} of the model: batch {answer['batch']}, {len(answer['samples'])} samples, "
            f"loss {answer['loss']:.4f} with the final weights ({answer['weights']})"
        )
    )
    target.print(_table(answer["documents"][:SHOWN]))
    if (more := len(answer["documents"]) - SHOWN) > 0:
        target.print(Text(f"and {more} documents more; --json has them all"))


def _spike(spike: Record) -> str:
    skipped = spike["skipped"]
    done = f"; passed over: batches {skipped[0]} to {skipped[-1]}" if skipped else ""
    return (
        f"spike at step {spike['step']}, batch {spike['batch']}: loss {spike['loss']:.4f} (z {spike['loss_z']:.1f}), "
        f"gradient norm {spike['gradient_norm']:.4g} (z {spike['gradient_norm_z']:.1f}){done}; loss of that moment:"
    )


def _table(documents: list[Record]) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in ("document", "path", "licence", "tokens", "nats per token", "cleaning"):
        table.add_column(name)
    for each in documents:
        copies = each["copies"]
        table.add_row(
            Text(each["id"][:12]),
            Text(copies[0]["path"] if copies else "not in the corpus"),
            Text(", ".join(sorted({str(copy["licence"]) for copy in copies}))),
            Text(str(each["tokens"])),
            Text(f"{each['nats_per_token']:.3f}"),
            Text(_cleaning(each)),
        )
    return table


def _cleaning(document: Record) -> str:
    """What cleaning decided, in a few words."""
    parts = ["kept" if document["cluster"] else "not kept"]
    kinds = [each["kind"] for each in document["redactions"]]
    parts += [f"redacted {kinds.count(kind)} {kind}" for kind in sorted(set(kinds))]
    parts += [f"{each['path']} dropped: {each['reason']}" for each in document["drops"][:2]]
    parts += [f"overlaps {each['suite']} {each['task_id']}" for each in document["contaminated"][:2]]
    return "; ".join(parts)
