"""`overnight trace`: which question is asked, and its answer as a table or as JSON."""

import json
from pathlib import Path

from components.core.config import Settings, read_settings
from components.core.errors import ConfigError
from components.lineage import document_trace, step_trace
from flows.commands.trace_tables import console, show, show_forgotten
from flows.running.graph import cache_objects
from flows.running.params import Params, read_params
from flows.running.workspace import exclusive


def run(
    document: str | None, forget: str | None, reason: str, near: bool, as_json: bool, *, step: int | None = None
) -> bool:
    """Print the answer; False where the list of models that was asked for could not be made."""
    if sum(each is not None for each in (document, forget, step)) != 1:
        raise ConfigError("trace: needed one of --document ID, --step N and --forget ID")
    if forget is None and (reason or near):
        raise ConfigError("trace: --reason and --near belong to --forget")
    if step is not None:
        read = step_trace.trace_step(step)
        if as_json:
            print(json.dumps(read, indent=1))
        else:
            step_trace.show(read, console())
        return True
    settings = read_settings()
    sources = sources_of(settings, read_params())
    if document is not None:
        answer = document_trace.trace(document, sources)
    else:
        answer = forgotten(str(forget), sources, reason=reason, near=near)
    if as_json:
        print(json.dumps(answer, indent=1))
    elif document is not None:
        show(answer, console())
    else:
        show_forgotten(answer, console())
    return document is not None or answer["versions"] is not None


def sources_of(settings: Settings, params: Params) -> document_trace.Sources:
    """Those of this workspace."""
    opt_out = Path(params.ingest.opt_out)
    return document_trace.Sources(settings=settings, release=params.release, opt_out=opt_out, cache=cache_objects)


def forgotten(reference: str, sources: document_trace.Sources, *, reason: str, near: bool) -> document_trace.Record:
    """See document_trace.forget. Raises BusyError while a cycle runs."""
    with exclusive(sources.settings, "the opt-out list"):
        return document_trace.forget(reference, sources, reason=reason, near=near)
