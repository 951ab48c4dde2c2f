"""The chat template of a foreign tokenizer, taken apart into what stands around the texts of a chat.

    python -m components.tokens.foreign.chat_template TOKENIZER_JSON SECONDS < {"template": ..., "bos_token": ...}
    one line of JSON: {"form": ChatForm.record()} or {"reason": why it cannot be taken apart}

A template is a program (Jinja). It is run once, in a process of its own whose time and memory are bounded, over chats
of marked texts; the ids between the marks are kept, and nothing of it runs when a model is trained or serves.
Covers: templates that write each turn by its role alone (ChatML, Llama 3, Gemma without a system's turn excepted, Phi,
Zephyr), a text of the system that they put where none is given.
Not covered, and said so: templates that put the system's text into a user's turn, that open an answer in another way
than they write one, whose turns open without a special token, or that read the clock.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from components.core.errors import one_line
from components.tokens.encoding.chat_form import ROLES, ChatForm
from components.tokens.foreign.pipeline import cleaned, read
from components.tokens.foreign.pipeline_probe import bounded

SYSTEM, USER, ASSISTANT = ROLES
CPU_SECONDS = 20
MAX_CHARACTERS = 100_000
MARK = "qZ{}Zq"
# Chats that the pieces must give, each as the template writes it whole: with and without a system, of several turns.
CHATS = (
    (USER,),
    (SYSTEM, USER),
    (USER, ASSISTANT, USER),
    (SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER),
)

Json = dict[str, Any]
Render = Callable[[Sequence[str], bool], list[str]]
"""Roles of a chat, and whether an answer is to follow -> what the template writes before, between and behind texts."""


def take_apart(tokenizer_json: Path, template: str, tokens: Json) -> ChatForm | str:
    """The form of a template, or why there is none. `tokens` are the texts that it may ask for, as bos_token."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(tokenizer_json.resolve()), str(CPU_SECONDS)],
        cwd=Path(__file__).parents[3],
        input=json.dumps({"template": template, **tokens}),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return f"it takes more than {CPU_SECONDS} s of a processor, or ends the process"
    return ChatForm.read(said["form"]) if "form" in said else str(said["reason"])


def form_of(tokenizer_json: Path, template: str, tokens: Json) -> ChatForm:
    """What `take_apart` says, in this process. Raises ValueError with the reason."""
    if len(template) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(template)} characters, at most {MAX_CHARACTERS} are read")
    render = _renderer(template, tokens)
    tokenizer = Tokenizer.from_str(json.dumps(cleaned(read(tokenizer_json), tokenizer_json)[0]))
    special = {each.content for each in tokenizer.get_added_tokens_decoder().values() if each.special}

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    first, last = render((USER,), False)
    begins, between, answered = render((USER, ASSISTANT), False)
    opens_answer = _without(render((USER,), True)[1], last, "its turns end otherwise where an answer follows")
    if not between.startswith(last) or between != last + opens_answer:
        raise ValueError("it opens an answer in another way than it writes one")
    opens_user = _without(render((USER, ASSISTANT, USER), False)[2], answered, "its turns differ by their place")
    bos = str(tokens.get("bos_token") or "")
    begin = bos if bos and first.startswith(bos) and not opens_user.startswith(bos) else ""
    if not first.endswith(opens_user) or begins != first:
        raise ValueError("its turns differ by their place")
    with_system = render((SYSTEM, USER), False)
    if not with_system[1].endswith(opens_user) or not with_system[0].startswith(begin):
        raise ValueError("it gives the system no turn of its own")
    opening = {SYSTEM: with_system[0][len(begin) :], USER: opens_user, ASSISTANT: opens_answer}
    closing = {SYSTEM: with_system[1].removesuffix(opens_user), USER: last, ASSISTANT: answered}
    for role, text in opening.items():
        if not any(each in text for each in special):
            raise ValueError(f"no special token opens a turn of the {role}: a text could say the same")
    end = next((each for each in special if answered.startswith(each)), None)
    if end is None:
        raise ValueError(f"no special token ends an answer, it is followed by {answered[:20]!r}")
    form = ChatForm(
        begin=ids(begin),
        default_system=ids(first[len(begin) :].removesuffix(opens_user)),
        opening={role: ids(text) for role, text in opening.items()},
        closing={role: ids(text) for role, text in closing.items()},
        end=ids(end)[0],
    )
    for chat in CHATS:
        pieces = render(chat, True)
        whole = [
            token
            for piece, mark in zip(pieces, [*map(_mark, range(len(chat))), ""], strict=True)
            for token in (*ids(piece), *ids(mark))
        ]
        if form.prompt([(role, ids(_mark(number))) for number, role in enumerate(chat)]) != whole:
            raise ValueError("its turns are written together in another way than one by one")
    return form


def _mark(number: int) -> str:
    return MARK.format(number)


def _without(text: str, beginning: str, reason: str) -> str:
    if not text.startswith(beginning):
        raise ValueError(reason)
    return text.removeprefix(beginning)


def _renderer(template: str, tokens: Json) -> Render:
    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = json.dumps
    compiled = environment.from_string(template)

    def render(roles: Sequence[str], answer: bool) -> list[str]:
        messages = [{"role": role, "content": _mark(number)} for number, role in enumerate(roles)]
        text = compiled.render(messages=messages, add_generation_prompt=answer, **tokens)
        pieces = re.split("|".join(re.escape(_mark(number)) for number in range(len(roles))), text)
        if len(pieces) != len(roles) + 1:
            raise ValueError(f"a chat of {len(roles)} turns comes out with {len(pieces) - 1} texts")
        return pieces

    return render


if __name__ == "__main__":
    bounded(int(sys.argv[2]))
    given = json.load(sys.stdin)
    try:
        answer: Json = {"form": form_of(Path(sys.argv[1]), given.pop("template"), given).record()}
    except Exception as error:  # a template reaches any line of the library
        answer = {"reason": one_line(error)}
    os.write(1, json.dumps(answer).encode())
