"""What a tokenizer.json may be made of when a model is continued with it, and what is switched off in it.

A tokenizer.json is a program: it can drop, change and multiply text, and carries the state of whoever ran it last. Ours
is to stand for every byte of a document, so parts that keep all of a text are allowed by name and others refused.
Switched off, with a note: truncation, padding, what a post-processor adds, dropout, white space that added tokens take.
Added: the tokens of single bytes that a byte-level vocabulary lacks, behind its ids (SmolLM's lacks 21, of control
characters and of what UTF-8 hardly or never has, and would drop them).
Refused: normalizers, pre-tokenizers and decoders that lose or multiply text, models that know no bytes, patterns that
may take exponential time, JSON beyond the bounds.
Not covered: whether the parts together keep a text, which components.tokens.foreign.pipeline_probe tries.
"""

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from components.core.errors import DataError
from components.core.text import read_json_object
from components.tokens.encoding.alphabet import REPLACEMENT, byte_characters, byte_names

MAX_TOKENS = 1_000_000
MAX_TOKEN_CHARACTERS = 2048
MAX_PARTS = 32
MAX_PATTERN_CHARACTERS = 2000
MAX_LACKING_BYTES = 64  # beyond it a vocabulary writes bytes in another way

Json = dict[str, Any]


def read(path: Path) -> Json:
    """The file as JSON. Raises DataError with one line."""
    needed = (
        "a checkpoint is continued with its own tokenizer, save it beside the weights (AutoTokenizer.save_pretrained)"
    )
    try:
        return read_json_object(path)
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as a tokenizer: {error}; {needed}") from error


def cleaned(content: Json, where: Path) -> tuple[Json, list[str]]:
    """The tokenizer without what is switched off, and what that was, a note each. Raises DataError for what is refused.

    where   the file, for messages
    """
    notes: list[str] = []

    def refuse(what: str) -> DataError:
        return DataError(f"{where}: {what}; continue a checkpoint whose tokenizer keeps every byte of a text")

    try:
        kept = {**content, "truncation": None, "padding": None, "post_processor": None}
        notes += [f"{name} of its texts" for name in ("truncation", "padding") if content.get(name)]
        if content.get("post_processor") and content["post_processor"].get("type") != "ByteLevel":
            notes.append(f"the tokens that its post-processor {content['post_processor'].get('type')} adds")
        for stage, judge in _JUDGES.items():
            parts = _parts(content.get(stage))
            if len(parts) > MAX_PARTS:
                raise ValueError(f"its {stage} has {len(parts)} parts, at most {MAX_PARTS} are read")
            for part in parts:
                judge(part)
        kept["model"] = _model(content["model"], notes)
        kept["added_tokens"] = _added_tokens(content.get("added_tokens") or [], notes)
        kept["model"] = _with_all_bytes(kept)
    except ValueError as error:
        raise refuse(str(error)) from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refuse(
            f"its parts have another form than the library writes ({type(error).__name__}: {error})"
        ) from error
    return kept, notes


def _parts(stage: Json | None) -> list[Json]:
    """The parts of one stage in their order, sequences in sequences laid flat."""
    if stage is None:
        return []
    if stage["type"] != "Sequence":
        return [stage]
    inner = next(stage[name] for name in ("normalizers", "pretokenizers", "decoders") if name in stage)
    return [part for each in inner for part in _parts(each)]


def _normalizer(part: Json) -> None:
    """Unicode's canonical forms say the same text; SentencePiece writes spaces as another character."""
    kind = part["type"]
    if kind in ("NFC", "NFD") or (kind == "Prepend" and part["prepend"] == REPLACEMENT):
        return
    if kind == "Replace" and (part["pattern"], part["content"]) == ({"String": " "}, REPLACEMENT):
        return
    shown = f" of {json.dumps(part['pattern'])[:60]} by {part['content'][:60]!r}" if kind == "Replace" else ""
    raise ValueError(f"its normalizer {kind}{shown} changes or loses text")


def _pre_tokenizer(part: Json) -> None:
    kind = part["type"]
    if kind in ("ByteLevel", "Digits", "UnicodeScripts", "FixedLength"):
        return
    if kind == "Metaspace" and part["replacement"] == REPLACEMENT:
        return
    if kind == "Punctuation" and part.get("behavior") != "Removed":
        return
    if kind == "Split":
        if part["behavior"] == "Removed" and not part["invert"]:
            raise ValueError(f"its pre-tokenizer Split removes {json.dumps(part['pattern'])[:60]}")
        _pattern(part["pattern"])
        return
    raise ValueError(f"its pre-tokenizer {kind} loses text")


def _decoder(part: Json) -> None:
    kind = part["type"]
    if kind in ("ByteLevel", "ByteFallback", "Fuse") or (kind == "Metaspace" and part["replacement"] == REPLACEMENT):
        return
    if kind == "Replace" and (part["pattern"], part["content"]) == ({"String": REPLACEMENT}, " "):
        return
    if kind == "Strip" and part["content"] == " " and part["start"] <= 1 and part["stop"] == 0:
        return
    raise ValueError(f"its decoder {kind} changes or loses text")


_JUDGES: dict[str, Callable[[Json], None]] = {
    "normalizer": _normalizer,
    "pre_tokenizer": _pre_tokenizer,
    "decoder": _decoder,
}


def _pattern(pattern: Json) -> None:
    """Refuse what may take exponential time: a repetition without bound of what holds another, and back-references."""
    expression = pattern.get("Regex")
    if expression is None:
        if not pattern["String"]:
            raise ValueError("its pre-tokenizer Split cuts at an empty text")
        return
    if len(expression) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"a pattern has {len(expression)} characters, at most {MAX_PATTERN_CHARACTERS} are read")
    if reason := runaway(expression):
        raise ValueError(f"its pattern {expression[:80]!r} may take exponential time ({reason})")


# An escape, a class of characters (in which brackets may be escaped or nested), a bracket, or a repetition.
_TOKENS = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|\[:[^]]*:\]|[^\]\\])*\]|\(\?\#|\(|\)|[*+]|\{\d*,?\d*\}|.", re.DOTALL
)
_BACK_REFERENCE = re.compile(r"\\(?:[1-9]|k|g)|\(\?\(|\(\?&|\(\?R|\(\?P[=>]")
MAX_REPETITIONS = 1000


def runaway(expression: str) -> str | None:
    """Why a regular expression may take exponential time, by its form alone; None when its repetitions are not nested.

    A repetition is without bound (`*`, `+`, `{2,}`), or counts beyond a few. Linear in the expression.
    """
    if _BACK_REFERENCE.search(expression):
        return "it refers back to what it matched"
    holds = [False]  # of each group that is open: whether it holds a repetition
    closed = False  # whether the last thing was a group that holds one
    for match in _TOKENS.finditer(expression):
        token = match.group()
        if token.startswith("("):
            holds.append(False)
            closed = False
        elif token == ")":
            if len(holds) == 1:
                return "its brackets do not match"
            closed = holds.pop()
            holds[-1] |= closed
        elif token in "*+" or _repeats(token):
            if closed:
                return "a repetition within a repetition"
            if any(int(number) > MAX_REPETITIONS for number in re.findall(r"\d+", token)):
                return f"more than {MAX_REPETITIONS} repetitions"
            holds[-1] = True
        elif token != "?":  # optional or lazy: what went before stands
            closed = False
    return None


def patterns_of(content: Json) -> list[str]:
    """The regular expressions of a tokenizer that was judged."""
    return [
        part["pattern"]["Regex"] for part in _parts(content.get("pre_tokenizer")) if "Regex" in part.get("pattern", {})
    ]


def literals(expression: str) -> list[str]:
    """The plain texts in a regular expression."""
    characters = (match.group() for match in _TOKENS.finditer(expression))
    plain = (
        each.removeprefix("\\") if re.fullmatch(r"\\?[^\w\s\\()|?*+.^$]|\w", each) else "\0" for each in characters
    )
    return [each for each in "".join(plain).split("\0") if each]


def _repeats(token: str) -> bool:
    counts = re.fullmatch(r"\{(\d*)(,?)(\d*)\}", token)
    return counts is not None and (bool(counts[2]) or int(counts[1] or 0) > 1)


def _model(model: Json, notes: list[str]) -> Json:
    """A model that knows a token for every byte, without chance."""
    kind = model.get("type") or ("BPE" if "merges" in model else "of no name")
    if kind not in ("BPE", "Unigram"):
        raise ValueError(f"its model {kind} has no token for unknown words' bytes")
    vocabulary = model["vocab"]
    tokens = list(vocabulary) if kind == "BPE" else [each[0] for each in vocabulary]
    _check_sizes(tokens)
    lacking_bytes(model)
    if model.get("dropout"):
        notes.append(f"dropout of {model['dropout']} of its merges")
    return {**model, "dropout": None} if kind == "BPE" else model


def lacking_bytes(model: Json) -> list[str]:
    """The bytes that a model was never given a token of, as its vocabulary would write them. Raises ValueError for so
    many, or for a model of such a kind, that they cannot be added."""
    kind, byte_fallback = model.get("type"), bool(model.get("byte_fallback"))
    tokens = set(model["vocab"]) if isinstance(model["vocab"], dict) else {each[0] for each in model["vocab"]}
    lacking = sorted(set(byte_names() if byte_fallback else byte_characters()) - tokens)
    if lacking and (kind == "Unigram" or byte_fallback or len(lacking) > MAX_LACKING_BYTES):
        raise ValueError(f"it lacks tokens of {len(lacking)} of the 256 bytes, as {lacking[0]!r}, and drops them")
    return lacking


def _with_all_bytes(content: Json) -> Json:
    """The model with the tokens of single bytes that it lacks, behind all ids."""
    model: Json = content["model"]
    if not (lacking := lacking_bytes(model)):
        return model
    # The library numbers an added token by itself unless the vocabulary has it, too.
    known = model["vocab"] | {each["content"]: each["id"] for each in content["added_tokens"]}
    first = 1 + max(known.values())
    return {**model, "vocab": known | {token: first + place for place, token in enumerate(lacking)}}


def _check_sizes(tokens: Collection[str]) -> None:
    if len(tokens) > MAX_TOKENS:
        raise ValueError(f"it has {len(tokens)} tokens, at most {MAX_TOKENS} are read")
    if longest := max((token for token in tokens if len(token) > MAX_TOKEN_CHARACTERS), key=len, default=None):
        raise ValueError(f"a token has {len(longest)} characters, at most {MAX_TOKEN_CHARACTERS} are read")


def _added_tokens(tokens: list[Json], notes: list[str]) -> list[Json]:
    """Added tokens that take no white space from around them."""
    _check_sizes([each["content"] for each in tokens])
    taking = [each["content"] for each in tokens if each.get("lstrip") or each.get("rstrip")]
    if taking:
        notes.append(f"the white space that {len(taking)} added tokens take, as {taking[0]!r}")
    return [{**each, "lstrip": False, "rstrip": False} for each in tokens]
