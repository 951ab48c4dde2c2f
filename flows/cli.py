"""The command line. Each command loads only what it needs: start-up is paid by people.

Exit codes: 0 done, 1 failed, 2 bad input or configuration, 3 busy, 4 a gate refused.
"""

import importlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.core.config import Settings, read_settings
from components.core.errors import ConfigError, OvernightError

app = typer.Typer(
    help="From raw data to a language model in production in a day.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Names = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change one value of params.yaml")]
INTERRUPTED = 130


def _load(module: str) -> Any:
    """A module that is heavy to import, once its command was chosen."""
    return importlib.import_module(module)


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows as JSON, or as a table with the keys of the first one as its head."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None, padding=(0, 1))
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(*("" if value is None else _plain(str(value)) for value in row.values()))
    # A pipe has no width of its own, and 80 columns break a table into pieces.
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _plain(text: str) -> Text:
    """Text that is shown as it is: names and messages of programs may hold rich's markup and a terminal's commands."""
    return Text("".join(each if each.isprintable() or each in "\n\xa0" else repr(each)[1:-1] for each in text))


def _with_tools(settings: Settings) -> None:
    """Set what Prefect and MLflow read at their import."""
    os.environ.update(_load("flows.variables").tool_variables(settings))


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
    settings = read_settings()
    _check_request(settings, profile, hours, overrides, until, release, replay)
    with _load("flows.temporary_server").starting(settings) as server:
        ray = threading.Thread(target=_start_ray_if_needed, args=(settings,), daemon=True)
        ray.start()
        _with_tools(settings)
        os.environ["PREFECT_API_URL"] = server.api_url
        flow = _load("flows.cycle")
        server.wait()
        ray.join()
        try:
            result = flow.main(profile, hours, overrides, until, release, replay)
        except KeyboardInterrupt as error:
            print("overnight: interrupted; the same command goes on from here", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error
    _tell(result)


def _check_request(
    settings: Settings,
    profile: str | None,
    hours: float | None,
    overrides: list[str],
    until: str | None,
    release: bool,
    replay: str | None,
) -> None:
    """Find mistakes within a second or two, before any server starts. The flow, which forms start too, checks again."""
    if replay and (profile or hours or overrides):
        raise ConfigError("--replay takes every parameter from the record; leave out --profile, --hours and --set")
    with _load("flows.workspace").exclusive(settings, "a cycle's preparation"):
        params = _load("flows.params")
        text = _load("flows.replay").text(replay) if replay else params.requested(profile, hours, overrides)
        before, wanted = params.change(text)
    _load("components.core.cluster").check_reachable(settings)
    graph = _load("flows.graph")
    stages = graph.stages_until(_load("components.core.stages").read_stages(), until)
    _load("flows.deadline").require_possible(wanted, settings, stages, before)
    if release and until is None:
        _load("flows.ports").require_gateway_port(settings)


def _start_ray_if_needed(settings: Settings) -> None:
    """Start Ray beside the Prefect server when some stage will run; a failure shows again, and is told, in the flow."""
    graph = _load("flows.graph")
    try:
        stages = _load("components.core.stages").read_stages()
        if len(graph.current_stages(stages)) < len(stages):
            _load("components.core.cluster").start_head(settings)
    except OvernightError:
        return


def _against_deadline(result: dict[str, Any]) -> str:
    """How far before or after its deadline a cycle ended; nothing where it had little to do or was fixed."""
    if result["deadline_left_seconds"] is None:
        return ""
    left = result["deadline_left_seconds"]
    return f", {abs(left):.0f} s {'before' if left >= 0 else 'after'} the deadline"


def _tell(result: dict[str, Any]) -> None:
    """What a person wants to know when a cycle is over."""
    ran = sum(each["status"] == "ran" for each in result["stages"])
    print(f"{ran} of {len(result['stages'])} stages ran, {result['seconds']:.0f} s{_against_deadline(result)}")
    released, serving = result["release"], result["serving"]
    if released["decision"] != "not_asked":
        print(f"release: {released['decision']}; {'; '.join(released['reasons'])}")
    if serving:
        print(f"version {released['version']} answers in {serving['first_request_ms']:.0f} ms at {serving['url']}:")
        print(f"  {serving['prompt']!r} -> {serving['completion']!r}")
        print(
            f"  curl {serving['url']}/v1/completions -H 'content-type: application/json' "
            f"""-d '{{"model": "overnight", "prompt": "def add(a, b):", "max_tokens": 32}}'"""
        )
        print("  it serves until `make down`")
    print(f"report: {result['page']}")


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
    command = _load("flows.plan_command")
    asked = command.Asked(
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
    found = command.run(asked, lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _print(command.table(found), False)
    print("\n".join(command.lines(found)))


@app.command()
def release(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL_DIR", help="the cycle's when left out")] = None,
) -> None:
    """Register a model, ask the gate, commit the environment file, serve."""
    if model is not None:
        _require_directory(model, "a model")
    _flow_command("flows.release", "release", model_dir=str(model) if model else None)


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is a number to refuse, not an option
def promote(
    version: Annotated[int, typer.Argument(min=1, metavar="VERSION", help="number of a registered version")],
    to: Annotated[str, typer.Option(metavar="ENV", help="environment")] = "production",
) -> None:
    """Put a registered version into an environment, by a commit."""
    print(json.dumps(_release_flow("promote", to)(version=version, environment=to), indent=1))


@app.command()
def rollback(environment: Annotated[str, typer.Argument(metavar="ENV")] = "production") -> None:
    """Bring an environment back to its last usable state that differs from the present one, by a commit."""
    result = _release_flow("rollback", environment)(environment=environment)
    for reason in result["passed_over"]:
        print(f"passed over: {reason}", file=sys.stderr)
    print(json.dumps(result, indent=1))


def _release_flow(name: str, environment: str) -> Any:
    """A flow's function alone, once its environment is known to be one: Git is all that a commit needs."""
    settings = read_settings()
    config = _load("flows.params").read_params().release
    _load("components.release.environment").require(settings, environment, config)
    _with_tools(settings)
    return getattr(_load("flows.release"), name).fn


def _require_directory(path: Path, what: str) -> None:
    """Raise ConfigError before anything starts for a folder that is not there."""
    if not path.is_dir():
        raise ConfigError(f"{str(path)!r}: no such folder; needed the folder of {what}")


def _flow_command(module: str, name: str, **arguments: Any) -> None:
    """Run a flow in the Prefect server that is there, or a temporary one, and print its result as JSON."""
    settings = read_settings()
    with _load("flows.temporary_server").starting(settings) as server:
        _with_tools(settings)
        os.environ["PREFECT_API_URL"] = server.api_url
        flow = getattr(_load(module), name)
        server.wait()
        print(json.dumps(flow(**arguments), indent=1))


@app.command()
def up() -> None:
    """Start Prefect, MLflow, Ray, a worker, reconcile and metrics on loopback, and print where they are."""
    settings = read_settings()
    _with_tools(settings)
    rows = _load("flows.services").up(settings, print)
    _print([{"service": each.name, "url": each.url, "pid": each.pid} for each in rows], False)
    path = _load("components.core.keys").services_path(settings)
    print(f"MLflow asks for a user, overnight, and a password, the line in {path}; Prefect for overnight:PASSWORD")


@app.command()
def down() -> None:
    """Stop all that `up` or a cycle left running in this workspace."""
    stopped = _load("flows.services").down(read_settings())
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Services and environments: what should run, what does."""
    found = _load("flows.services").status(read_settings())
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _print(found["services"], False)
    _print(
        [
            each | {"versions": ", ".join(f"{one['version']} at {one['weight']} %" for one in each["versions"])}
            for each in found["environments"]
        ],
        False,
    )


@app.command()
def report() -> None:
    """Render reports/cycle.html again from the last cycle's record."""
    print(_load("flows.report_command").render_last())


@app.command()
def explain(paths: list[Path], as_json: AsJson = False) -> None:
    """Why each document would be kept, dropped or redacted."""
    config = _load("flows.params").read_params()
    found = _load("components.data.explain").explain(paths, config.check_raw, config.clean)
    if as_json:
        _print([each.row() for each in found], as_json)
    else:
        print("\n".join(line for each in found for line in each.told()))


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
    if not _load("flows.trace_command").run(document, forget, reason, near, as_json, step=step):
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR")],
    suite: Annotated[list[Path], typer.Option(help="file in HumanEval's format")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="keep the evaluation here, for compare")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on the held-out documents of data/tokens and on suites."""
    _require_directory(model, "a model")
    _print(_rounded(_load("flows.measuring").evaluate(model, suite, out), as_json), as_json)


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
    for name in (model_a, *replicate_a, model_b, *replicate_b):
        path = Path(name)
        directory = path if name and path.exists() else Path(name.rpartition(":")[0] or name or "no name")
        _require_directory(directory, "a model or an evaluation")
    rows, verdict = _load("flows.measuring").compare([model_a, *replicate_a], [model_b, *replicate_b], out)
    shown = rows if as_json else [{key: row[key] for key in _load("flows.comparison").COLUMNS} for row in rows]
    _print(_rounded(shown, as_json), as_json)
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
    found = _load("flows.measuring").execute(suite, solutions)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['passed']}/{found['total']} passed in {found['seconds']:.1f} s")
    _print(list(found["failures"]), False)
    if found["not_run"]:
        print(f"{len(found['not_run'])} not run: {found['not_run'][0]['cause'].removeprefix('not_run: ')}")


def _rounded(rows: list[dict[str, Any]], as_json: bool) -> list[dict[str, Any]]:
    """Figures as people read them; scripts get all digits."""
    if as_json:
        return rows
    return [{key: f"{each:.4g}" if isinstance(each, float) else each for key, each in row.items()} for row in rows]


def _one_line(text: str) -> str:
    """A message that may repeat what was typed, which may hold line breaks and a terminal's commands."""
    return " ".join(_plain(" ".join(text.split())).plain.split("\n"))


def main() -> None:
    """Entry point of the console script."""
    try:
        sys.exit(app(standalone_mode=False))
    except OvernightError as error:
        print(f"overnight: {_one_line(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        text = error.format_message()
        line = f"overnight: {_one_line(text)} (`overnight --help` lists what there is)"
        print(line if len(sys.argv) > 1 else text, file=sys.stderr)  # alone it asks for help
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
