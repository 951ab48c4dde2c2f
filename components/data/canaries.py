"""Canaries: lines with a random secret that nobody else has, planted into a corpus to see what a model gives away.

A canary is a line of code, `NAME = "secret"`, whose name no other has, as in The Secret Sharer (Carlini 2019,
arXiv:1802.08232). The kinds differ in what should happen to them on the way:

key      an API key of 62 characters' alphabet; redaction finds it by its name and its randomness
email    a mailbox at example.com, so nobody's; redaction finds it by its form
account  ten digits under a name that says nothing of secrets; no rule of redaction knows it, so it is trained on

Equal counts and seeds give equal canaries, so that who plants and who looks for them need not meet.
Not covered: planting by a parameter of a stage. Whoever wants planted canaries calls `plant` on the documents of a
source; a corpus without any is the control.
"""

import hashlib
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from components.data.documents import document_id

_ALPHABET = string.ascii_letters + string.digits
KEY_CHARACTERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One line: all before the secret, the secret, all after it."""

    name: str
    kind: str
    prefix: str
    secret: str
    suffix: str = '"\n'

    @property
    def text(self) -> str:
        """The line."""
        return self.prefix + self.secret + self.suffix


def _characters(alphabet: str, count: int, generator: np.random.Generator) -> str:
    return "".join(alphabet[index] for index in generator.integers(len(alphabet), size=count))


def _key(generator: np.random.Generator) -> str:
    """At least one digit in the middle: what has none may be a word."""
    middle = _characters(string.digits, 2, generator)
    half = KEY_CHARACTERS // 2 - 1
    return _characters(_ALPHABET, half, generator) + middle + _characters(_ALPHABET, half, generator)


def _email(generator: np.random.Generator) -> str:
    return f"{_characters(string.ascii_lowercase, 8, generator)}@example.com"


def _account(generator: np.random.Generator) -> str:
    return _characters(string.digits, 10, generator)


# The left side of the line, and how its secret is drawn.
KINDS: dict[str, tuple[str, Callable[[np.random.Generator], str]]] = {
    "key": ("SERVICE_{}_API_KEY", _key),
    "email": ("CONTACT_{}", _email),
    "account": ("ACCOUNT_{}", _account),
}


def _generator(*names: object) -> np.random.Generator:
    digest = hashlib.sha256(":".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8]))


def canaries(count: int, seed: int) -> tuple[Canary, ...]:
    """`count` canaries, the kinds in turn. The first n are the same for every count."""
    found = []
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        left, secret = KINDS[kind]
        generator = _generator("canary", seed, number)
        label = _characters(string.ascii_uppercase, 6, generator)
        prefix = f'{left.format(label)} = "'
        found.append(Canary(name=f"{kind}-{number:03}", kind=kind, prefix=prefix, secret=secret(generator)))
    return tuple(found)


def references(canary: Canary, count: int, seed: int) -> tuple[Canary, ...]:
    """The same line with other secrets of the same kind, which were planted nowhere: what chance would give."""
    generator = _generator("reference", seed, canary.name)
    draw = KINDS[canary.kind][1]
    secrets: dict[str, None] = {}
    while len(secrets) < count:
        if (secret := draw(generator)) != canary.secret:
            secrets[secret] = None
    return tuple(replace(canary, secret=secret) for secret in secrets)


def plant(documents: pl.DataFrame, planted: Sequence[Canary], *, copies: int, seed: int) -> pl.DataFrame:
    """Documents (column text; id and bytes follow it where they are there) with each canary at the end of `copies`.

    Each canary draws its documents by the seed; rows keep their order. Raises ValueError for fewer documents than
    copies: twice in one document is another experiment.
    """
    if copies > documents.height:
        raise ValueError(f"{copies} copies of a canary need as many documents, found {documents.height}")
    texts: list[str] = documents["text"].to_list()
    for canary in planted:
        chosen = _generator("plant", seed, canary.name).choice(documents.height, size=copies, replace=False)
        for row in chosen.tolist():
            end = "" if not texts[row] or texts[row].endswith("\n") else "\n"
            texts[row] += end + canary.text
    changed = {"text": pl.Series("text", texts, dtype=pl.String)}
    if "id" in documents.columns:
        changed["id"] = pl.Series("id", [document_id(text) for text in texts], dtype=pl.String)
    if "bytes" in documents.columns:
        changed["bytes"] = pl.Series("bytes", [len(text.encode()) for text in texts], dtype=documents["bytes"].dtype)
    return documents.with_columns(*changed.values())
