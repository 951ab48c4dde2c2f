"""The model card: what a version is, what it was made from, how it was measured and why it was let through.

Plain Markdown, committed beside the environment file. Everything in it comes from manifests and the gate.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.core.artifact import Manifest
from components.release.gate import GateDecision
from components.tokens.foreign.initial import INITIAL, Initial

LICENCES = "documents_by_licence"
TEACHER = "teacher"


def card(
    version: int, model: Manifest, lineage: Sequence[Manifest], metrics: Mapping[str, float], decision: GateDecision
) -> str:
    """The card of a version. `lineage` are the artifacts behind the model, in the order of the graph."""
    return "\n".join(
        [
            f"# overnight {version}",
            "",
            f"Digest `{model.digest}`, made by the stage {model.stage}.",
            "",
            "## Intended use",
            "",
            "Completion of source code of the kinds that it was trained on. What it writes is plausible, not proven:",
            "whoever runs it answers for it.",
            "",
            *_checkpoint(lineage),
            "## Data",
            "",
            *_licences(lineage),
            "",
            *_teacher(lineage),
            "## Training",
            "",
            *_table(("parameter", "value"), sorted(model.config.items())),
            "",
            "## Evaluation",
            "",
            *_table(("metric", "value"), ((name, f"{value:.4g}") for name, value in sorted(metrics.items()))),
            "",
            "## Gate",
            "",
            f"Decision: **{decision.outcome}**.",
            "",
            *(f"- {reason}" for reason in decision.reasons),
            "",
            "## Lineage",
            "",
            *_table(
                ("stage", "artifact", "code"),
                ((each.stage, f"`{each.digest[:16]}`", f"`{each.code_version[:16]}`") for each in (*lineage, model)),
            ),
            "",
        ]
    )


def _checkpoint(lineage: Sequence[Manifest]) -> list[str]:
    """What the model was continued from, its licence and its digest; nothing for one that began anew."""
    record = next((each.statistics[INITIAL] for each in lineage if INITIAL in each.statistics), None)
    if record is None:
        return []
    initial = Initial.model_validate(record)
    rows: list[Sequence[Any]] = [
        ("architecture", initial.model_type),
        ("parameters", initial.total),
        ("digest", f"`{initial.digest}`"),
    ]
    if source := initial.source:
        package = f"{source.package} {source.version}" if source.package else "none: a file of its own"
        rows += [
            ("model", source.name or "not named by the file"),
            ("licence", source.licence or "stated neither by the file nor by its package"),
            ("file", source.file),
            ("sha256 of the file", f"`{source.sha256}`"),
            ("package", package),
            ("stored as", source.quantization),
        ]
    else:
        rows.append(("licence", "not known: whoever named the directory answers for it"))
    return ["## Continued from", "", *_table(("checkpoint", "value"), rows), ""]


def _licences(lineage: Sequence[Manifest]) -> list[str]:
    """Documents by licence, from the artifact that counted them."""
    counted = [each.statistics[LICENCES] for each in lineage if LICENCES in each.statistics]
    if not counted:
        return ["The licences were not counted in the artifacts at hand; the lineage below names the data."]
    return _table(("licence", "documents"), sorted(counted[0].items(), key=lambda item: (-item[1], item[0])))


def _teacher(lineage: Sequence[Manifest]) -> list[str]:
    """Whose answers were learned, under which licence, and how many; nothing where no model taught."""
    record = next((each.statistics[TEACHER] for each in lineage if TEACHER in each.statistics), None)
    if record is None:
        return []
    rows: list[Sequence[Any]] = [
        ("model", record["model"]),
        ("licence", record["licence"]),
        ("prompts that it was asked", record["asked"]),
        ("answers learned", record["learned"]),
    ]
    if digest := record.get("digest"):
        rows.append(("digest", f"`{digest}`"))
    return ["A model taught this one:", "", *_table(("teacher", "value"), rows), ""]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table; text in a cell cannot break it."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]
