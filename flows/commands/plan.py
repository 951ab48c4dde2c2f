"""`overnight plan`: what a deadline gives, on this machine or another, before anything is trained.

Reads   params.yaml or a profile; data/tokens, .overnight/laws.json and models/base where they are there
Writes  nothing without --fit (.overnight/laws.json, reports/laws/fit.json and fit.svg) and --simulate
        (reports/laws/simulation.json and simulation.svg)
The stage `plan` looks through the same functions (components.training.planning.outlook).
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from components.core import artifact
from components.core.artifact import Manifest, write_file
from components.core.config import Settings, read_settings, read_yaml
from components.core.errors import ConfigError, DataError
from components.core.graph.stages import read_stages, writer
from components.deadline import durations
from components.deadline.config import START
from components.deadline.division import Needs, elapsed_seconds
from components.lineage import survey
from components.tokens.foreign import adoption
from components.tokens.foreign.initial import INITIAL, Initial
from components.training.config import Alternative, PlanConfig
from components.training.plan import shape_for, sizes_for
from components.training.planning import fitted, hardware, ladder, predictions, simulate
from components.training.planning.fitted import FittedLaw, domain_of
from components.training.planning.hardware_table import Machine, machine_here, machine_of
from components.training.planning.laws import (
    BESIROGLU,
    CEREBRAS_FLOPS,
    FLOPS_PER_PARAMETER_AND_TRAINING_TOKEN,
    Law,
    cerebras_loss,
)
from components.training.planning.outlook import Outlook, law_for, look
from dashboards.report import laws_chart
from dashboards.report.chart import duration, quantity, size
from flows.running import params
from flows.running.params import Params

REPORTS = Path("reports/laws")
UNITS = {"bits per byte": "bits/byte"}
NAMES = {"irreducible": "E", "a": "A", "alpha": "alpha", "b": "B", "beta": "beta"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command; None: as params.yaml has it."""

    hours: float | None = None
    profile: str | None = None
    hardware: str | None = None
    fit_minutes: float | None = None
    simulate: int | None = None
    inference_tokens: float | None = None
    price_per_hour: float | None = None
    failures_per_gpu_hour: float | None = None
    stage_spread: float | None = None
    seed: int = 0


def run(options: Options, tell: Callable[[str], None]) -> dict[str, Any]:
    """The plan as JSON. Raises ConfigError for a deadline, a memory or a hardware that cannot be."""
    settings = read_settings()
    machine = machine_of(options.hardware) if options.hardware else None
    profile = options.profile or _profile_of(options.hardware)
    chosen = _params(profile)
    config = _plan_config(chosen.plan, options, machine)
    tokens, initial = _tokens(), None
    if chosen.pretrain.init_from is not None:
        initial = adoption.foreseen(chosen.pretrain.init_from, chosen.vocabulary.span_tokens)
        adopted = tokens.statistics.get(INITIAL) if tokens else None
        tokens = tokens if adopted and adopted["digest"] == initial.digest else None
    law = fitted.read(survey.LAWS) if survey.LAWS.exists() else None
    if options.fit_minutes is not None:
        law = _fit(chosen, config, options.fit_minutes, settings, tell)
    machine = machine or machine_here(hardware.describe(), config.device, config.num_workers)
    outlook, why = _outlook(config, machine, chosen, tokens, initial, law, settings)
    report = _report(outlook, config, machine, profile, tokens, law if why is None else None)
    if initial is not None:
        report["notes"].append(f"goes on from {chosen.pretrain.init_from}, a {initial.model_type}")
    elif tokens is None:
        report["notes"].append("there are no tokens: the vocabulary is params.yaml's")
    if options.fit_minutes is not None and law is not None:
        _write(REPORTS / "fit.svg", laws_chart.fit_svg(law, outlook.rows[outlook.chosen]))
    if options.simulate is not None:
        report["simulation"] = _simulated(options, config, chosen, machine, outlook.rows[outlook.chosen], outlook)
    return report


def _profile_of(name: str | None) -> str | None:
    """The profile that was made for a machine of the table, where there is one."""
    candidate = f"{name}-day"
    return candidate if name and candidate in params.profile_names() else None


def _params(profile: str | None) -> Params:
    if profile is None:
        return params.read_params()
    params.compose(profile)  # names the profiles that exist when this one does not
    source = params.PROFILES / f"{profile}.yaml"
    return params.checked(read_yaml(source), str(source))


def _plan_config(config: PlanConfig, options: Options, machine: Machine | None) -> PlanConfig:
    """plan's section with what was asked in the command."""
    if options.hours is not None and not 0 < options.hours <= 24 * 30:
        raise ConfigError(f"--hours {options.hours:g}: needed more than 0 and at most 720")
    changed: dict[str, Any] = {} if options.hours is None else {"hours": options.hours}
    economics = {
        name: value
        for name, value in (("inference_tokens", options.inference_tokens), ("price_per_hour", options.price_per_hour))
        if value is not None
    }
    for name, value in economics.items():
        if value < 0:
            raise ConfigError(f"--{name.replace('_', '-')} {value:g}: needed 0 or more")
    changed["economics"] = config.economics.model_copy(update=economics)
    if machine is not None:
        device = machine.accelerator.device
        changed |= {"device": device, "num_workers": machine.count if device == "cuda" else 1}
    return config.model_copy(update=changed)


def _tokens() -> Manifest | None:
    tokens = writer(read_stages(), "tokens").output
    return artifact.read(tokens, verify=False) if (tokens / artifact.MANIFEST).exists() else None


def _fit(
    chosen: Params, config: PlanConfig, minutes: float, settings: Settings, tell: Callable[[str], None]
) -> FittedLaw:
    """Run the ladder, keep the law where the plan stage reads it, and its record in the reports."""
    if minutes <= 0:
        raise ConfigError(f"--fit-minutes {minutes:g}: needed more than 0")
    stages = read_stages()
    tokens, tokenizer = writer(stages, "tokens"), writer(stages, "tokenizer")
    for each in (tokens, tokenizer):
        if not (each.output / artifact.MANIFEST).exists():
            raise DataError(
                f"{each.output}: not there, and a law is fitted on it; `overnight cycle --until {tokens.name}` makes it"
            )
    # Threads that spin while they wait lose everything to any other process; Tune's own tables say nothing new.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("AIR_VERBOSITY", "0")
    law = ladder.fit_corpus(
        config,
        chosen.pretrain,
        tokens=tokens.output,
        tokenizer=tokenizer.output,
        state=settings.state,
        minutes=minutes,
        tell=tell,
    )
    fitted.write(survey.LAWS, law)
    record = law.model_dump(mode="json", exclude={"draws"}) | {"intervals": law.intervals()}
    _write(REPORTS / "fit.json", json.dumps(record, indent=1) + "\n")
    return law


def _outlook(
    config: PlanConfig,
    machine: Machine,
    chosen: Params,
    tokens: Manifest | None,
    initial: Initial | None,
    law: FittedLaw | None,
    settings: Settings,
) -> tuple[Outlook, str | None]:
    known, why = law_for(config, law, domain_of(tokens, config)) if tokens else (None, None)
    if tokens is None and law is not None:
        why = "the fitted law is not used: there are no tokens to compare it with"
    vocabulary_size = int(tokens.statistics["vocabulary_size"]) if tokens else chosen.vocabulary.vocabulary_size
    # Earlier cycles here say nothing of another machine.
    needs = Needs(config, durations.read(settings.state) if machine.measured else ())
    outlook = look(
        config,
        machine,
        needs,
        # As `overnight cycle` counts: from the command on.
        elapsed_seconds=needs.of(START).wanted + elapsed_seconds(needs, Settings(), 0.0),
        sizes=sizes_for(config, initial),
        shape_of=lambda size: shape_for(config, size, vocabulary_size, initial),
        law=known,
        why_no_law=why,
        corpus_tokens=tokens.statistics.get("train_tokens") if tokens and machine.measured else None,
    )
    return outlook, why


def _report(
    outlook: Outlook,
    config: PlanConfig,
    machine: Machine,
    profile: str | None,
    tokens: Manifest | None,
    law: FittedLaw | None,
) -> dict[str, Any]:
    """Everything that a script or a person would want to know."""
    return {
        "hardware": machine.name,
        "measured": machine.measured,
        "profile": profile,
        "hours": config.hours,
        "currency_per_hour": machine.price_per_hour,
        "precision": outlook.precision,
        "compiled": outlook.compiled,
        "accelerators": list(outlook.accelerators),
        "stage_seconds": outlook.stage_seconds,
        "alternatives": [
            each.model_dump(mode="json") | {"chosen": size == outlook.chosen} for size, each in outlook.rows.items()
        ],
        "reason": outlook.reason,
        "notes": list(outlook.notes),
        "law": None if law is None else law.intervals(),
        "compute_optimal": _compute_optimal(outlook.rows[outlook.chosen], law.fitted.law if law else BESIROGLU),
        "predictions": predictions.read(REPORTS),
    }


def _compute_optimal(row: Alternative, law: Law) -> dict[str, Any]:
    """Size and tokens of least loss for the compute of a row, and what Cerebras-GPT's models of that compute reach;
    `covers`: whether the law was fitted on such runs."""
    flops = FLOPS_PER_PARAMETER_AND_TRAINING_TOKEN * row.parameters * row.tokens
    parameters, tokens = law.compute_optimal(flops)
    low, high = CEREBRAS_FLOPS
    return {
        "flops": flops,
        "source": law.source,
        "parameters": round(parameters),
        "tokens": round(tokens),
        "loss": law.loss(parameters, tokens),
        "covers": law.covers(parameters, tokens),
        "cerebras_loss": cerebras_loss(flops),
        "cerebras_covers": low <= flops <= high,
    }


def _simulated(
    options: Options, config: PlanConfig, chosen: Params, machine: Machine, row: Alternative, outlook: Outlook
) -> dict[str, Any]:
    """Draw the cycles, keep figures and plot, return the summary."""
    assert options.simulate is not None
    if options.simulate < 1:
        raise ConfigError(f"--simulate {options.simulate}: needed 1 or more cycles")
    drawn = {"failures_per_gpu_hour": options.failures_per_gpu_hour, "stage_spread": options.stage_spread}
    for name, value in drawn.items():
        if value is not None and value < 0:
            raise ConfigError(f"--{name.replace('_', '-')} {value:g}: needed 0 or more")
    chances = replace(simulate.Chances(), **{name: value for name, value in drawn.items() if value is not None})
    simulated = simulate.Run(
        config=config,
        pretrain=chosen.pretrain,
        num_gpus=machine.count,
        tokens_per_second=row.tokens_per_second,
        compile_seconds=config.compile_seconds if outlook.compiled else 0.0,
        chances=chances,
    )
    ended = simulate.simulate(simulated, options.simulate, options.seed)
    figures = simulate.summary(simulated, ended) | {
        "hardware": machine.name,
        "hours": config.hours,
        "parameters": row.parameters,
        "planned_tokens": row.tokens,
        "assumptions": asdict(chances) | {"utilisation": machine.accelerator.utilisation, "seed": options.seed},
    }
    stem = f"simulation-{machine.name}"
    _write(REPORTS / f"{stem}.json", json.dumps(figures, indent=1) + "\n")
    hours = [each.seconds / 3600 for each in ended if np.isfinite(each.seconds)]
    if hours:
        _write(REPORTS / f"{stem}.svg", laws_chart.ends_svg(hours, config.hours))
    return figures


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives as people read them."""
    return [
        {
            "": "->" if each["chosen"] else "",
            "size": f"{each['layers']} x {each['width']}",
            "parameters": quantity(each["parameters"]),
            "tokens": quantity(each["tokens"]),
            "per parameter": f"{each['tokens_per_parameter']:.1f}",
            "tokens/s": quantity(each["tokens_per_second"]),
            "training": duration(each["training_seconds"]),
            "memory": size(each["memory_bytes"]),
            "micro-batch": each["micro_batch_samples"] or "does not fit",
            "predicted": _loss(each),
            "train cost": f"{each['train_cost']:.2f}",
            "serve cost": f"{each['serve_cost']:.2f}",
        }
        for each in report["alternatives"]
    ]


def _loss(each: dict[str, Any]) -> str:
    predicted = each["predicted"]
    if predicted is not None:
        return f"{predicted['value']:.3f} ({predicted['low']:.3f}-{predicted['high']:.3f}) {UNITS[predicted['unit']]}"
    low, high = sorted((each["besiroglu_loss"], each["hoffmann_loss"]))
    covered = BESIROGLU.covers(each["parameters"], each["tokens"])
    return f"{low:.2f}-{high:.2f} nats/token" if covered else "no law covers it"


def _best_line(best: dict[str, Any]) -> str:
    """What published or fitted laws say of the compute at hand."""
    beyond = "" if best["covers"] else ", far from what it was fitted on"
    cerebras = "" if best["cerebras_covers"] else ", likewise far from it"
    unit = "nats/token" if best["source"] == BESIROGLU.source else UNITS[fitted.UNIT]
    return (
        f"compute-optimal for these {best['flops']:.2g} FLOPs: {quantity(best['parameters'])} parameters, "
        f"{quantity(best['tokens'])} tokens, {best['loss']:.3f} {unit} ({best['source'].partition(',')[0]}{beyond}); "
        f"Cerebras-GPT at that compute: {best['cerebras_loss']:.2f} nats/token{cerebras}"
    )


def lines(report: dict[str, Any]) -> list[str]:
    """What is told below the table."""
    sentences = [f"chosen: {report['reason']}", *report["notes"], _best_line(report["compute_optimal"])]
    if report["law"] is None:
        sentences.append(
            "losses in nats/token are those of two published laws with their own tokenizers (Besiroglu, Hoffmann)"
        )
    if report["law"]:
        numbers = ", ".join(
            f"{NAMES[name]} {each['value']:.4g} ({each['low']:.4g} to {each['high']:.4g})"
            for name, each in report["law"].items()
        )
        sentences.append(f"law of this corpus, bits per byte: {numbers}")
    for each in report["predictions"][-3:]:
        sentences.append(
            f"earlier: {each['parameters']:,} parameters, {each['tokens']:,} tokens: predicted {each['predicted']:.3f} "
            f"({each['low']:.3f} to {each['high']:.3f}), found {each['found']:.3f}"
        )
    simulation = report.get("simulation")
    if simulation:
        ends, tokens = simulation["finish_hours"], simulation["tokens"]
        sentences += [
            f"{simulation['cycles']} simulated cycles: {simulation['met']:.1%} meet {report['hours']:g} h, "
            f"{simulation['met_within_1_percent']:.1%} within 1 %, {simulation['met_within_5_percent']:.1%} within 5 %",
            f"end after {ends['p5']:.2f} / {ends['p50']:.2f} / {ends['p95']:.2f} h, tokens {quantity(tokens['p5'])} / "
            f"{quantity(tokens['p50'])} / {quantity(tokens['p95'])} (p5 / p50 / p95); "
            f"{simulation['with_failures']:.1%} had a failure",
            *(f"missed by {cause}: {count}" for cause, count in simulation["missed"].items()),
        ]
    return sentences
