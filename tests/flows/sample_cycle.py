"""A small cycle as it lies on disk, for tests of reports: real artifacts of the standard library's files."""

import math
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from components.alignment.rewards.agreement import JudgeFigures
from components.alignment.rewards.ensemble import JudgeReport
from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig
from components.core.figures.intervals import Estimate, wilson
from components.core.graph.closure import ROOT
from components.core.graph.stages import read_stages
from components.data import ingest
from components.data.config import CheckRawConfig, CleanConfig, IngestConfig
from components.data.documents.document import document_id
from components.tokens.config import TokenizeConfig, VocabularyConfig
from dashboards.report.cycle_record import CycleRecord, ModelRecord, ReleaseRecord, ServingRecord, StageRecord, iso
from dashboards.report.page import render

BEGUN = 1_790_000_000.0
NAMES = [each.name for each in read_stages(ROOT)]
CONFIGS = {
    "ingest": IngestConfig(),
    "check_raw": CheckRawConfig(),
    "clean": CleanConfig(),
    "vocabulary": VocabularyConfig(),
    "tokenize": TokenizeConfig(),
}
SECONDS = dict(zip(NAMES, (14.2, 9.1, 31.5, 8.8, 5.2, 6.4, 12.0, 231.0, 18.2, 48.0, 66.3, 41.7, 52.9), strict=True))

RUNS = {"pretrain": {"tokens_per_second": 21_308.4, "data_stall_share": 0.00042}}


class Workspace:
    """Real artifacts of a small cycle under a directory: documents of the standard library, written by the contract."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = [replace(each, outputs=(root / each.output,)) for each in read_stages(ROOT)]
        self.outputs = {each.name: each.output for each in self.stages}
        self.manifests: dict[str, Manifest] = {}

    def fill(self, path_prefix: str = "") -> None:
        """Write every stage's artifact, each made from the one before."""
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]
        texts = [file.read_text(encoding="utf-8") for file in files]
        raw = pl.DataFrame(
            {
                "id": [document_id(text) for text in texts],
                "path": [f"{path_prefix}{file.name}" for file in files],
                "bytes": [len(text.encode()) for text in texts],
            }
        )
        dropped = raw[2:9].with_columns(
            reason=pl.Series(
                ["near_duplicate"] * 3 + ["syntax", "long_line", "exact_duplicate", path_prefix or "syntax"]
            )
        )
        kinds = ["email"] * 17 + ["ip"] * 4 + ["key"]
        self._write("ingest", {"part-00000.parquet": raw}, _ingest_statistics(raw))
        self._write(
            "check_raw",
            {
                "part-00000.parquet": raw[2:],
                "quarantine.parquet": raw[:2].with_columns(rule=pl.lit("max_line_characters")),
            },
        )
        self._write(
            "clean",
            {
                "part-00000.parquet": raw[9:],
                "drops.parquet": dropped.select("id", "path", "reason"),
                "redactions.parquet": pl.DataFrame({"kind": kinds}),
            },
        )
        self._write("check_clean", {})
        self._write("vocabulary", {})
        self._write(
            "tokenize",
            {},
            {
                "train_tokens": 10_485_120,
                "validation_tokens": 437_004,
                "bytes_per_token": 3.41,
                "vocabulary_size": 4096,
            },
        )
        self._write("plan", {})
        self._write(
            "pretrain",
            {"history.csv": history(), "validation.csv": validation()},
            {"validation_bits_per_byte": 1.535, "xz_bits_per_byte": 1.871, "xz_bits_per_byte_in_training": 2.104},
        )
        for stage in ("instructions", "sft", "preferences", "align", "evaluate"):
            self._write(stage, {})

    def _write(self, stage: str, tables: dict[str, pl.DataFrame], statistics: dict[str, Any] | None = None) -> None:
        inputs = list(self.manifests.values())[-1:]
        config = CONFIGS.get(stage, StepConfig())
        with artifact.create(
            self.outputs[stage], stage=stage, config=config, inputs=inputs, code=Path(ingest.__file__)
        ) as draft:
            for name, table in tables.items():
                table.write_csv(draft.path / name) if name.endswith(".csv") else table.write_parquet(draft.path / name)
                draft.rows[name] = table.height
            draft.statistics = statistics or {}
            draft.run |= RUNS.get(stage, {})
            if stage == "preferences":
                JUDGES.write(draft.path)
        assert draft.manifest is not None
        self.manifests[stage] = draft.manifest

    def render(self, record: CycleRecord) -> str:
        """The page's text."""
        page = render(record, self.root / "reports" / "cycle.html", stages=self.stages, state=self.root / ".overnight")
        return page.read_text(encoding="utf-8")


def _ingest_statistics(raw: pl.DataFrame) -> dict[str, Any]:
    licences = {
        "Apache-2.0": 1250,
        "BSD-3-Clause": 591,
        "MIT": 459,
        "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND MIT": 205,
    }
    more = {f"LicenseRef-{number}": 10 - number for number in range(7)}
    return {
        "documents": raw.height,
        "bytes": int(raw["bytes"].sum()),
        "found_documents": 31_887,
        "packages": 180,
        "documents_by_licence": licences | more,
        "left_by_reason": {"copyleft": 282, "empty": 1341, "unknown_licence": 161},
    }


def history() -> pl.DataFrame:
    """A hundred steps of a loss that falls as a power of the tokens, with a spike."""
    steps = list(range(1, 101))
    losses = [2.1 + 6.2 * step**-0.55 + (1.4 if step == 63 else 0.05 * math.sin(step)) for step in steps]
    rates = [0.02 * min(1.0, step / 5, (100 - step + 1) / 40) for step in steps]
    return pl.DataFrame(
        {
            "step": steps,
            "tokens": [step * 49_152 for step in steps],
            "loss": losses,
            "learning_rate": rates,
        }
    )


def validation() -> pl.DataFrame:
    """Of the same run, every tenth step."""
    steps = list(range(10, 101, 10))
    return pl.DataFrame(
        {
            "step": steps,
            "tokens": [step * 49_152 for step in steps],
            "bits_per_byte": [1.44 + 1.5 * step**-0.6 for step in steps],
        }
    )


JUDGES = JudgeReport(
    min_agreement=0.2,
    judges=(
        JudgeFigures(
            judge="endpoint:judge",
            pairs=138,
            outcomes={"preferred": 101, "tie": 4, "inconsistent": 33, "unreadable": 0, "failed": 0},
            consistency=wilson(105 / 138, 138, 0.95),
            position_bias=wilson(0.62, 138, 0.95),
            length_bias=wilson(0.55, 131, 0.95),
            length_bias_of_verifier=wilson(0.51, 96, 0.95),
            self_bias=None,
            self_bias_of_verifier=None,
            accuracy=wilson(0.56, 96, 0.95),
            kappa=Estimate(value=0.12, low=-0.03, high=0.27, n=96),
            is_left_out=True,
        ),
    ),
    between=(),
    decided_by={"verifier": 96, "unreadable": 42},
)


def metrics() -> dict[str, Any]:
    """Three models and a champion, three suites; the champion lacks one."""
    found: dict[str, Any] = {}
    for number, model in enumerate(("base", "sft", "aligned", "champion")):
        bits, share = 1.522 + 0.013 * number, 0.62 + 0.05 * number
        found[model] = {
            "likelihood": {"bits_per_byte": {"value": bits, "low": bits - 0.04, "high": bits + 0.04, "n": 118}},
            "completion": {
                "exact_match": {"value": share / 3, "low": share / 3 - 0.035, "high": share / 3 + 0.038, "n": 500},
                "edit_similarity": {"value": 0.481, "low": 0.46, "high": 0.502, "n": 500},
                "parse_share": {"value": share, "low": share - 0.06, "high": share + 0.06, "n": 200},
            },
        }
    for model in ("base", "sft", "aligned"):
        found[model]["functional"] = {"pass_at_1": {"value": 0.0, "low": 0.0, "high": 0.023, "n": 164}}
        found[model]["likelihood"]["xz_bits_per_byte"] = {"value": 1.871, "low": None, "high": None, "n": 118}
    return found


def stage_records(manifests: dict[str, Manifest], failed: str | None = None) -> tuple[StageRecord, ...]:
    """The stages in their order up to the one that failed; check_raw and vocabulary came from the cache."""
    started, records = BEGUN + 11.0, []
    for stage, seconds in SECONDS.items():
        status = "failed" if stage == failed else "cached" if stage in ("check_raw", "vocabulary") else "ran"
        took = 0.2 if status == "cached" else seconds
        records.append(
            StageRecord(
                name=stage,
                status=status,
                seconds=took,
                work_seconds=0.82 * took if status == "ran" else 0.0,
                planned_seconds=None if stage in ("ingest", "check_raw", "clean") else round(seconds * 0.93),
                digest=None if stage == failed else manifests[stage].digest,
                mlflow_run_id=document_id(stage)[:32] if status == "ran" else None,
                started_at=started,
                peak_memory_bytes=int(1e7 * seconds) + 600_000_000,
            )
        )
        started += took + 0.3
        if stage == failed:
            break
    return tuple(records)


def record_of(workspace: Workspace, **changes: Any) -> CycleRecord:
    """A cycle that promoted version 3, then whatever is changed."""
    stages = stage_records(workspace.manifests)
    seconds = 553.4
    values: dict[str, Any] = {
        "cycle_id": "20260921-141320-1f3a",
        "profile": "smoke",
        "started_at": iso(BEGUN),
        "finished_at": iso(BEGUN + seconds),
        "deadline_hours": 0.2,
        "seconds": seconds,
        "work_seconds": sum(stage.work_seconds for stage in stages),
        "peak_memory_bytes": 2_910_000_000,
        "stages": stages,
        "metrics": metrics(),
        "model": ModelRecord(digest=workspace.manifests["align"].digest, parameters=1_312_512, tokens=4_915_200),
        "release": ReleaseRecord(
            decision="promote",
            reasons=(
                "bits per byte are 1.548, 0.827 of the 1.871 of xz; within at most 0.950",
                "share of completions that parse: +0.0500 against the champion on 200 items: no worse",
            ),
            version="3",
            environment_commit="9f2c51d07be94a5f8c1f77de7c2b3f0f5ce1ab42",
        ),
        "serving": ServingRecord(
            url="http://127.0.0.1:8000",
            first_request_ms=41.7,
            prompt="def read_lines(path):\n    ",
            completion='with open(path) as file:\n        return [line.rstrip("\\n") for line in file]\n',
        ),
        "notes": (
            "MLflow does not answer (connection refused); metrics are kept and sent later",
            "MLflow is back; what was kept has been sent",
        ),
        "error": None,
    }
    return CycleRecord.model_validate(values | changes)
