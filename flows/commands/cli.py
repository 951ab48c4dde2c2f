"""The command line.

Each function imports what it needs in its own body, the one place where the linter lets a file do so (pyproject.toml):
help is there at once, and no command waits for torch, Prefect or MLflow before it needs them. Prefect and MLflow read
the environment when they are imported, so `_with_tools` comes before them.
Exit codes: 0 done, 1 failed, 2 bad input or configuration, 3 busy, 4 a gate refused.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from components.core.config import Settings
    from flows.servers.temporary_server import Starting

app = typer.Typer(
    help="From raw data to a language model in production in a day.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Names = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change one value of params.yaml")]
ENVIRONMENT = "environment; release.environment of params.yaml when absent"
INTERRUPTED = 130


def _with_tools(settings: "Settings") -> None:
    """Set what Prefect and MLflow read at their import."""
    from flows.servers.variables import tool_variables

    os.environ.update(tool_variables(settings))


@contextmanager
def _prefect(settings: "Settings") -> "Iterator[Starting]":
    """The Prefect server that is there, or a temporary one on its way up, and what tools read set to it."""
    from flows.servers.temporary_server import starting

    with starting(settings) as server:
        _with_tools(settings)
        os.environ["PREFECT_API_URL"] = server.api_url
        yield server


@app.command()
def cycle(
    profile: Annotated[str | None, typer.Option(help="compose params.yaml from profiles/PROFILE.yaml first")] = None,
    hours: Annotated[float | None, typer.Option(help="deadline, hours from now")] = None,
    overrides: Names = [],  # noqa: B006  typer reads it once
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="stop after this stage")] = None,
    release: Annotated[bool, typer.Option("--release/--no-release", help="put the model into production")] = True,
    replay: Annotated[
        str | None, typer.Option(metavar="CYCLE_ID", help="run a recorded cycle again, in fixed mode")
    ] = None,
) -> None:
    """Raw data to a model in production: runs what is out of date, releases, reports."""
    from components.core.config import read_settings
    from flows.commands.output import print_cycle

    settings = read_settings()
    _check_request(settings, profile, hours, overrides, until, release, replay)
    with _prefect(settings) as server:
        ray = threading.Thread(target=_start_ray_if_needed, args=(settings,), daemon=True)
        ray.start()
        from flows.cycle import main as run_cycle  # seconds, in which the server and Ray come up

        server.wait()
        ray.join()
        try:
            result = run_cycle(profile, hours, overrides, until, release, replay)
        except KeyboardInterrupt as error:
            print("overnight: interrupted; the same command goes on from here", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error
    print_cycle(result)


def _check_request(
    settings: "Settings",
    profile: str | None,
    hours: float | None,
    overrides: list[str],
    until: str | None,
    release: bool,
    replay: str | None,
) -> None:
    """Find mistakes within a second or two, before any server starts. The flow, which forms start too, checks again."""
    from components.core.errors import ConfigError
    from components.core.graph.stages import read_stages
    from components.machine.cluster import check_reachable
    from flows.running import params
    from flows.running import replay as replaying
    from flows.running.deadline import require_possible
    from flows.running.graph import stages_until
    from flows.running.workspace import exclusive
    from flows.servers.ports import require_gateway_port

    if replay and (profile or hours or overrides):
        raise ConfigError("--replay takes every parameter from the record; leave out --profile, --hours and --set")
    with exclusive(settings, "a cycle's preparation"):
        text = replaying.text(replay) if replay else params.requested(profile, hours, overrides)
        before, wanted = params.change(text)
    check_reachable(settings)
    require_possible(wanted, settings, stages_until(read_stages(), until), before)
    if release and until is None:
        require_gateway_port(settings)


def _start_ray_if_needed(settings: "Settings") -> None:
    """Start Ray beside the Prefect server when some stage will run; a failure shows again, and is told, in the flow."""
    from components.core.errors import OvernightError
    from components.core.graph.stages import read_stages
    from components.machine.cluster import start_head
    from flows.running.graph import current_stages

    try:
        stages = read_stages()
        if len(current_stages(stages)) < len(stages):
            start_head(settings)
    except OvernightError:
        return


@app.command()
def plan(
    hours: Annotated[float | None, typer.Option(help="deadline of the whole cycle; params.yaml's when absent")] = None,
    profile: Annotated[str | None, typer.Option(help="plan with profiles/PROFILE.yaml; writes no params.yaml")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="fit a scaling law to small runs on the tokens first")] = False,
    fit_minutes: Annotated[float | None, typer.Option(help="--fit with so much for the small runs; 10 alone")] = None,
    hardware: Annotated[str | None, typer.Option(help="another machine, from the table: h100x8, h200, cpux2")] = None,
    simulate: Annotated[int | None, typer.Option(metavar="N", help="draw N cycles with failures and delays")] = None,
    failures_per_gpu_hour: Annotated[float | None, typer.Option(help="of --simulate; Llama 3's when absent")] = None,
    stage_spread: Annotated[float | None, typer.Option(help="of --simulate; 0.1 of a stage's time when absent")] = None,
    seed: Annotated[int, typer.Option(help="of --simulate")] = 0,
    inference_tokens: Annotated[float | None, typer.Option(help="tokens served over the model's life")] = None,
    price: Annotated[float | None, typer.Option(help="of one accelerator an hour")] = None,
    as_json: AsJson = False,
) -> None:
    """Sizes and tokens for a deadline, their memory, loss and cost, and the choice with its reason."""
    from flows.commands.output import print_rows
    from flows.commands.plan import Options, lines, run, table

    options = Options(
        hours=hours,
        profile=profile,
        hardware=hardware,
        fit_minutes=10.0 if fit and fit_minutes is None else fit_minutes,
        simulate=simulate,
        failures_per_gpu_hour=failures_per_gpu_hour,
        stage_spread=stage_spread,
        seed=seed,
        inference_tokens=inference_tokens,
        price_per_hour=price,
    )
    outlook = run(options, lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        print(json.dumps(outlook, indent=1))
        return
    print_rows(table(outlook), False)
    print("\n".join(lines(outlook)))


@app.command()
def release(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL_DIR", help="the cycle's when left out")] = None,
) -> None:
    """Register a model, ask the gate, commit the environment file, serve."""
    from components.core.config import read_settings

    if model is not None:
        _require_directory(model, "a model")
    settings = read_settings()
    with _prefect(settings) as server:
        from flows.release import release as run_release

        server.wait()
        print(json.dumps(run_release(model_dir=str(model) if model else None), indent=1))


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is a number to refuse, not an option
def promote(
    version: Annotated[int, typer.Argument(min=1, metavar="VERSION", help="number of a registered version")],
    to: Annotated[str | None, typer.Option(metavar="ENV", help=ENVIRONMENT)] = None,
) -> None:
    """Put a registered version into an environment, by a commit."""
    environment = _prepare_commit(to)
    from flows.release import promote as run_promote

    print(json.dumps(run_promote.fn(version=version, environment=environment), indent=1))


@app.command()
def rollback(environment: Annotated[str | None, typer.Argument(metavar="ENV", help=ENVIRONMENT)] = None) -> None:
    """Bring an environment back to its last usable state that differs from the present one, by a commit."""
    environment = _prepare_commit(environment)
    from flows.release import rollback as run_rollback

    result = run_rollback.fn(environment=environment)
    for reason in result["passed_over"]:
        print(f"passed over: {reason}", file=sys.stderr)
    print(json.dumps(result, indent=1))


def _prepare_commit(environment: str | None) -> str:
    """The environment that is meant, once it is known to be one. Git is all that a commit needs: no flow run, only the
    flow's function."""
    from components.core.config import read_settings
    from components.release.environment import require
    from flows.running.params import read_params

    settings, config = read_settings(), read_params().release
    name = config.environment if environment is None else environment
    require(settings, name, config)
    _with_tools(settings)
    return name


def _require_directory(path: Path, what: str) -> None:
    """Raise ConfigError before anything starts for a folder that is not there."""
    from components.core.errors import ConfigError

    if not path.is_dir():
        raise ConfigError(f"{str(path)!r}: no such folder; needed the folder of {what}")


@app.command()
def up() -> None:
    """Start Prefect, MLflow, Ray, a worker, reconcile and metrics on loopback, and print where they are."""
    from components.core.config import read_settings
    from components.machine.service_keys import services_path
    from flows.commands.output import print_rows
    from flows.servers import stack as services

    settings = read_settings()
    _with_tools(settings)
    rows = services.up(settings, print)
    print_rows([{"service": each.name, "url": each.url, "pid": each.pid} for each in rows], False)
    path = services_path(settings)
    print(f"MLflow asks for a user, overnight, and a password, the line in {path}; Prefect for overnight:PASSWORD")


@app.command()
def down() -> None:
    """Stop all that `up` or a cycle left running in this workspace."""
    from components.core.config import read_settings
    from flows.servers import stack as services

    stopped = services.down(read_settings())
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Services and environments: what should run, what does."""
    from components.core.config import read_settings
    from flows.commands.output import print_rows
    from flows.servers import stack as services

    state = services.status(read_settings())
    if as_json:
        print(json.dumps(state, indent=1))
        return
    print_rows(state["services"], False)
    print_rows(
        [
            each | {"versions": ", ".join(f"{one['version']} at {one['weight']} %" for one in each["versions"])}
            for each in state["environments"]
        ],
        False,
    )


@app.command()
def report() -> None:
    """Render reports/cycle.html again from the last cycle's record."""
    from flows.commands.report import render_last

    print(render_last())


@app.command()
def explain(paths: list[Path], as_json: AsJson = False) -> None:
    """Why each document would be kept, dropped or redacted."""
    from components.data.cleaning.explain import explain as explain_documents
    from flows.commands.output import print_rows
    from flows.running.params import read_params

    config = read_params()
    documents = explain_documents(paths, config.check_raw, config.clean)
    if as_json:
        print_rows([each.row() for each in documents], as_json)
    else:
        print("\n".join(line for each in documents for line in each.report()))


@app.command()
def trace(
    document: Annotated[str | None, typer.Option(metavar="ID", help="id, its first characters, or path")] = None,
    step: Annotated[int | None, typer.Option(metavar="N", help="what pretraining read at a step, by loss")] = None,
    forget: Annotated[str | None, typer.Option(metavar="ID", help="trace it and add it to the opt-out list")] = None,
    reason: Annotated[str, typer.Option(help="with --forget: why, for the list")] = "",
    near: Annotated[bool, typer.Option("--near", help="with --forget: its near copies in this corpus too")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow a document from its source to the models that saw it, or have it forgotten; or the documents of a step."""
    from flows.commands.trace import run

    if not run(document, forget, reason, near, as_json, step=step):
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR")],
    suite: Annotated[list[Path], typer.Option(help="file in HumanEval's format")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="keep the evaluation here, for compare")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on the held-out documents of data/tokens and on suites."""
    from flows.commands.output import print_rows, rounded

    _require_directory(model, "a model")
    from flows.commands.measuring import evaluate as measure

    print_rows(rounded(measure(model, suite, out), as_json), as_json)


@app.command()
def compare(
    model_a: Annotated[str, typer.Argument(metavar="MODEL_A", help="model directory, or evaluation[:MODEL]")],
    model_b: Annotated[str, typer.Argument(metavar="MODEL_B", help="model directory, or evaluation[:MODEL]")],
    replicate_a: Annotated[list[str], typer.Option(metavar="MODEL", help="A trained with another seed")] = [],  # noqa: B006
    replicate_b: Annotated[list[str], typer.Option(metavar="MODEL", help="B trained with another seed")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="folder of comparison.json, .md and .svg")] = Path("reports/compare"),
    as_json: AsJson = False,
) -> None:
    """Measure two models on the same questions: A minus B, in pairs, with intervals, and what the gate would say."""
    from flows.commands.output import print_rows, rounded

    for name in (model_a, *replicate_a, model_b, *replicate_b):
        path = Path(name)
        directory = path if name and path.exists() else Path(name.rpartition(":")[0] or name or "no name")
        _require_directory(directory, "a model or an evaluation")
    from dashboards.report.comparison_table import COLUMNS
    from flows.commands.measuring import compare as measure

    rows, verdict = measure([model_a, *replicate_a], [model_b, *replicate_b], out)
    shown = rows if as_json else [{key: row[key] for key in COLUMNS} for row in rows]
    print_rows(rounded(shown, as_json), as_json)
    if not as_json:
        print("\n".join(["", f"{verdict['outcome'].replace('_', ' ')}:", *verdict["reasons"], f"files: {out}"]))


@app.command()
def execute(
    suite: Annotated[
        str,
        typer.Argument(metavar="SUITE", help="file (HumanEval, HumanEval-X, MBPP, MultiPL-E), or a built-in name"),
    ],
    solutions: Annotated[str, typer.Option(metavar="canonical|none|FILE")] = "canonical",
    as_json: AsJson = False,
) -> None:
    """Run a suite's programs in the sandbox, without a model."""
    from flows.commands.measuring import execute as run_suite
    from flows.commands.output import print_rows

    outcome = run_suite(suite, solutions)
    if as_json:
        print(json.dumps(outcome, indent=1))
        return
    print(f"{outcome['passed']}/{outcome['total']} passed in {outcome['seconds']:.1f} s")
    print_rows(list(outcome["failures"]), False)
    if outcome["not_run"]:
        print(f"{len(outcome['not_run'])} not run: {outcome['not_run'][0]['cause'].removeprefix('not_run: ')}")


def _say(message: str) -> None:
    """A message on one line: it may repeat what was typed, which may hold line breaks and a terminal's commands."""
    from flows.commands.output import printable

    print(f"overnight: {printable(' '.join(message.split()))}", file=sys.stderr)


def main() -> None:
    """Entry point of the console script."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        if len(sys.argv) > 1:
            _say(f"{error.format_message()} (`overnight --help` lists what there is)")
        else:  # alone it asks for help
            print(error.format_message(), file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from components.core.errors import OvernightError  # here, since help needs nothing of components

        if not isinstance(error, OvernightError):
            raise
        _say(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
