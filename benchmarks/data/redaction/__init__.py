"""Private data in real files: from a Parquet file of documents to the spans in each.

Ours looks for e-mail addresses, IP addresses and keys, with the settings that clean has; Presidio for e-mail and IP
addresses, with its pattern recognisers and no language model (it has none for keys).
Not the same: Presidio takes any suffix of the public list and any word character, also `x@self.to` and the user part
of a URL, and every four numbers, also versions and loopback; ours takes domains that the public list lacks (.local).
Where the rules are the same, the decisions are compared: an address of ASCII letters and digits under .com, .org, .net
or .edu that no URL holds; and four numbers with dots after a scheme, before a port, or in quotes and unlike a version
or object identifier, of a host, not loopback.
"""

import ipaddress
import re
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import Comparison
from benchmarks.installed import sample

INPUT = "documents.parquet"
COMPARISON = Comparison(name="redaction", unit="documents/s", peers={"presidio": 3.0})
_MIN_AGREEMENT = 0.999
_SAME_EMAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.]{0,62}@(?:[a-z0-9]+\.)+(?:com|org|net|edu)")
_CORE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.]*@[^@]*$")
_PLAIN_BEFORE = re.compile(r"(?:^|[\s<>(\"',:])$")
_PLAIN_AFTER = re.compile(r"^(?:$|[\s<>)\"',;])")
_NOBODYS = [
    ipaddress.IPv4Network(each)
    for each in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
] + [ipaddress.IPv4Network("224.0.0.0/3")]
_OPEN_URL = re.compile(r"://[^\s]*$")


def prepare(folder: Path) -> None:
    """3,000 files of this environment."""
    pl.DataFrame({"text": sample(3000, seed=2)}).write_parquet(folder / INPUT)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """The share of documents in which both find the same of what the same rules are for; raises ValueError under
    99.9 %."""
    texts = pl.read_parquet(folder / INPUT)["text"].to_list()
    lines = []
    for kind, same in (("email", is_plain_email), ("ip", is_plain_ip)):
        equal = with_some = 0
        for text, mine, theirs in zip(texts, ours[kind], peer[kind], strict=True):
            found, other = ({end for start, end in spans if same(text, start, end)} for spans in (mine, theirs))
            equal += found == other
            with_some += bool(found | other)
        lines.append(f"{kind} equal in {equal / len(texts):.2%} of {len(texts)} documents, {with_some} with some")
        if equal < _MIN_AGREEMENT * len(texts):
            raise ValueError("; ".join(lines))
    return "; ".join(lines)


def is_plain_email(text: str, start: int, end: int) -> bool:
    """An address that the rules of both take: by its letters, its domain and what stands around it."""
    core = _CORE.search(text, start, end)  # Presidio also takes what stands before, such as email='
    start = core.start() if core else start
    plain = _PLAIN_BEFORE.search(text[max(0, start - 1) : start]) and _PLAIN_AFTER.search(text[end : end + 1])
    in_url = _OPEN_URL.search(text[max(0, start - 128) : start])
    return bool(plain and not in_url and _SAME_EMAIL.fullmatch(text, start, end))


def is_plain_ip(text: str, start: int, end: int) -> bool:
    """Four numbers that the rules of both take: in a URL, with a port or quoted, of a host."""
    try:
        address = ipaddress.IPv4Address(text[start:end])
    except ValueError:
        return False
    before, after = text[max(0, start - 3) : start], text[end : end + 6]
    placed = before == "://" or re.match(r":\d{2,5}\b", after)
    quoted = (
        before[-1:] in ("'", '"')
        and after[:1] == before[-1:]
        and address.packed[0] >= 32
        and max(address.packed) >= 100
    )
    return bool(placed or quoted) and not any(address in network for network in _NOBODYS)
