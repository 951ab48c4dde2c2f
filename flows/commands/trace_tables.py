"""What `overnight trace` found, for people."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Record = dict[str, Any]
SHOWN_STEPS = 12
FILE_WIDTH = 200  # characters of a line where nobody's terminal says
SHOWN_COPIES = 20
SAW = {True: "saw it", False: "did not see it", None: "not known"}


def console() -> Console:
    """Where tables go: as wide as the terminal, and wide enough where there is none."""
    target = Console(highlight=False)
    return target if target.is_terminal else Console(highlight=False, width=FILE_WIDTH)


def show(answer: Record, target: Console) -> None:
    """A document's way as one table of steps, its near copies, and the models."""
    target.print(Text(f"document {answer['id']}"))
    way = Table(box=None, padding=(0, 1), show_header=False)
    for name, text in _way(answer):
        way.add_row(Text(name), Text(text))
    target.print(way)
    if copies := (answer["clean"] or {}).get("near_copies"):
        target.print(Text(f"\nnear copies: {len(copies)}"))
        target.print(
            _table(
                [
                    {
                        "id": each["id"][:12],
                        "path": each["path"],
                        "in the corpus": "stays" if each["stays"] else "dropped",
                    }
                    for each in copies[:SHOWN_COPIES]
                ]
            )
        )
    models = [{"model": each["stage"], **_model(each)} for each in answer["models"]]
    versions = [
        {"model": f"version {each['version']}", **_model(each), "serves": _serves(each)}
        for each in answer["versions"] or []
    ]
    for rows in (models, versions):
        if rows:
            target.print(Text(""))
            target.print(_table(rows))
    for note in answer["notes"]:
        target.print(Text(f"note: {note}"))


def show_forgotten(answer: Record, target: Console) -> None:
    """What the opt-out list holds now, who saw the document, and what comes next."""
    show(answer, target)
    listed = answer["opt_out"]
    target.print(Text(""))
    for identity in listed["added"]:
        target.print(Text(f"{listed['file']}: added {identity}"))
    for identity in listed["listed_before"]:
        target.print(Text(f"{listed['file']}: {identity} was there already"))
    for line in answer["next"]:
        target.print(Text(f"- {line}"))


def _way(answer: Record) -> list[tuple[str, str]]:
    """The steps that a document went through, each in a line or a few."""
    rows = [("source", _copy(each)) for each in answer["copies"]] or [("source", "not in the corpus")]
    if answer["opted_out"]:
        entry = ", ".join(f"{name} {value}" for name, value in answer["opted_out"].items())
        rows.append(("opted out", f"{entry}; it leaves at the next ingest"))
    if (checked := answer["check_raw"]) is not None:
        broken = [f"{each['rule']} ({each['value']})" for each in checked["rules"]]
        rows.append(("check_raw", ", ".join([checked["verdict"], *broken])))
    if (clean := answer["clean"]) is not None:
        rows.append(("clean", _decision(clean)))
        rows += [("", f"dropped: {each['path']}: {each['reason']} {each['detail']}") for each in clean["drops"]]
        rows += [
            ("", f"redacted: {each['kind']} at {each['start']}-{each['end']}: {each['placeholder']}")
            for each in clean["redactions"]
        ]
    if (tokens := answer["tokens"]) is not None:
        where = f"{tokens['split']}, document {tokens['document']}, tokens {tokens['start']} to {tokens['end']}"
        rows.append(("tokens", where))
    if (training := answer["training"]) is not None:
        rows.append(("pretraining", _reads(training)))
    if (names := answer["instructions"]) is not None:
        rows.append(("instructions", f"made from it: {len(names)}{', ' if names else ''}{', '.join(names[:8])}"))
    if (made := answer["preferences"]) is not None:
        rows.append(("preferences", f"prompts {made['prompts']}, answers {made['answers']}, pairs {made['pairs']}"))
    return rows


def _copy(each: Record) -> str:
    package = " ".join(part for part in (each["package"], each["version"]) if part)
    return (
        f"{each['path']} of {package} ({each['source']}), {each['licence']}, {each['language']}, {each['bytes']} bytes"
    )


def _decision(clean: Record) -> str:
    place = f" in {clean['shard']}, row {clean['row']}, cluster {clean['cluster'][:12]}" if clean["shard"] else ""
    return f"{clean['decision']}{place}"


def _reads(training: Record) -> str:
    """Windows, steps and epochs in one line."""
    reads = training["reads"]
    first, last = training["windows"]
    windows = f"windows {first} to {last}"
    if not reads:
        return f"{windows}, read in none of {training['num_steps']} steps"
    steps = sorted({each["step"] for each in reads})
    shown = ", ".join(map(str, steps[:SHOWN_STEPS])) + (
        f" and {len(steps) - SHOWN_STEPS} more" * (len(steps) > SHOWN_STEPS)
    )
    epochs = sorted({each["epoch"] for each in reads})
    span = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    return f"{windows}, read {len(reads)} times in epoch {span}, at steps {shown} of {training['num_steps']}"


def _model(each: Record) -> Record:
    return {"digest": each["digest"][:12], "": SAW[each["saw"]], "because": each["why"]}


def _serves(version: Record) -> str:
    places = []
    for row in version["environments"]:
        live = "" if row["live_weight"] == row["desired_weight"] else f", {row['live_weight']} % live"
        places.append(f"{row['environment']} at {row['desired_weight']} %{live}")
    return "; ".join(places) or "nowhere"


def _table(rows: list[Record]) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    return table
