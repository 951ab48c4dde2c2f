"""Labelled cases for every kind of private data, hard ones that are none, and the arithmetic of spans."""

import base64
import ipaddress
import json

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from components.data.cleaning.redact import Redaction, find_all, redact_text, replace
from components.data.config import RedactConfig

KINDS = RedactConfig()
EVERY_KIND = RedactConfig(kinds=("email", "ip", "key", "name"), copyright_names=True)


def token(length: int, alphabet: str = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7") -> str:
    return (alphabet * length)[:length]


def jwt() -> str:
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890"}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, base64.urlsafe_b64encode(b"signature-of-32-bytes-or-so-12345").decode().rstrip("=")])


BLOCK = "-----BEGIN RSA PRIVATE KEY-----\n" + (token(64) + "\n") * 4 + "-----END RSA PRIVATE KEY-----"
# A private value, between « and », in the text around it.
PRIVATE = [
    ("email", "# Author: Ann Lee <«ann.lee+code@mail.stanford.edu»>"),
    ("email", "mail «a@b.de», now"),
    ("email", "Contact «first_last@sub-domain.example.co.uk»."),
    ("email", "author='«ANN@EXAMPLE.COM»'"),
    ("ip", "host = '«10.20.30.40»'"),
    ("ip", "connect to «8.8.8.8»:53 first"),
    ("ip", "dns at «192.168.1.17»."),
    ("ip", "http://«66.35.250.150»/index"),
    ("ip", "«2607:f8b0:4005:805::200e» is up"),
    ("ip", "listen [«fe80::1ff:fe23:4567:890a»]:80"),
    ("ip", "2001:4860 is half of «2001:4860:4860:0:0:0:0:8888»"),
    ("key", "id = '«AKIAQ3EGRIWRPB6TW7XZ»'"),
    ("key", f"aws_secret_key = '«{token(40)}»'"),
    ("key", f"token: «ghp_{token(36)}»"),
    ("key", f"«github_pat_{token(22)}_{token(59)}»"),
    ("key", f"«glpat-{token(20)}» for gitlab"),
    ("key", "slack = '«xoxb-123456789012-123456789012-abcdefabcdefabcdefabcdef»'"),
    ("key", f"stripe('«sk_live_{token(24)}»')"),
    ("key", f"«sk-{token(20)}T3BlbkFJ{token(20)}»"),
    ("key", f"«SG.{token(22)}.{token(43)}»"),
    ("key", f"jwt = '«{jwt()}»'"),
    ("key", "db = 'postgres://admin:«hunter2x»@db.internal:5432/x'"),
    ("key", f"//registry.npmjs.org/:_authToken=«npm_{token(36)}»"),
    ("key", f"AccountName=x;AccountKey=«{token(88)}»;"),
    ("key", f"«AIza{token(35)}»"),
    ("key", f"key = '''\n«{BLOCK}»\n'''"),
    ("key", "k = '«" + BLOCK.replace("\n", "\\n") + "»'"),
    ("key", f"«-----BEGIN PRIVATE KEY-----\n{token(64)}\n{token(64)}»\n\nand no end"),
]
NOT_PRIVATE = [
    "y = x@self.weight",
    "q = k@v.T",
    "@pytest.mark.parametrize",
    "user@",
    "git clone git@github.com:owner/name.git",
    "http://user:{password}@host.com/",
    "https://user:password@host/",
    "amqp://guest:guest@localhost:5672 and oracle://scott:tiger@host",
    "static_cast<c10::{kind}>(value), IPv6Network('A000::/3')",
    "as :rfc:`5891` §4.2.3.2 says",
    "f'{user}@{host}.com'",
    "version 1.2.3.4 of the driver",
    "__version__ = '10.4.2.1'",
    "package==1.2.3.4",
    "pip install package-1.2.3.4.tar.gz",
    "v10.11.12.13",
    "1.3.6.1.4.1.311",
    "univ.ObjectIdentifier('1.3.101.113')",
    "see section 13.7.1.4 of the standard",
    "127.0.0.1 and 127.1.2.3",
    "0.0.0.0",
    "255.255.255.0",
    "192.0.2.1 198.51.100.7 203.0.113.9",
    "network 10.0.0.0/8 and 172.16.0.0/12",
    "300.1.2.3 and 1.2.3.400",
    "::1 and ::",
    "2001:db8::1",
    "a[1::2], b[::2], c[100::200], x[::-1]",
    "12:30:45 and 00:1a:2b:3c:4d:5e",
    "std::vector::iterator, dead::beef",
    "if 'BEGIN RSA PRIVATE KEY' in text:",
    "header = '-----BEGIN PRIVATE KEY-----'\nfooter = '-----END PRIVATE KEY-----'",
    "AKIA is a prefix, AKIA1234 too short",
    f"x{token(40)}AKIAQ3EGRIWRPB6TW7XZ{token(40)}",
    "disk_live_abcdefghijklmnopqrstuvwx",
    "eyJustAnIdentifier.with_dots.and_more",
    "sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
]


@pytest.mark.parametrize(("kind", "marked"), PRIVATE)
def test_private_data_is_found_where_it_stands(kind: str, marked: str) -> None:
    start, end = marked.index("«"), marked.index("»") - 1
    text = marked.replace("«", "").replace("»", "")
    found = redact_text("ü\n" + text, KINDS)[1]
    assert [(each.kind, each.start, each.end) for each in found] == [(kind, start + 2, end + 2)]


@pytest.mark.parametrize("text", NOT_PRIVATE)
def test_what_only_looks_private_stays(text: str) -> None:
    assert redact_text(text, KINDS) == (text, [])


def test_one_value_has_one_placeholder_and_kinds_count_apart() -> None:
    text = "a@x.org 10.1.1.1 b@x.org a@x.org 10.1.1.1"
    assert redact_text(text, KINDS)[0] == "<EMAIL_1> <IP_1> <EMAIL_2> <EMAIL_1> <IP_1>"


def test_only_the_kinds_asked_for() -> None:
    assert redact_text("a@x.org 10.1.1.1", RedactConfig(kinds=("ip",)))[0] == "a@x.org <IP_1>"
    assert redact_text("a@x.org", RedactConfig(kinds=()))[0] == "a@x.org"


PIECES = st.sampled_from(
    [marked.replace("«", "").replace("»", "") for _, marked in PRIVATE] + NOT_PRIVATE + ["", "\n", "é≠😀", "x = 1"]
)


@given(st.lists(PIECES, max_size=12))
def test_spans_are_in_order_apart_and_give_the_redacted_text(pieces: list[str]) -> None:
    text = "\n".join(pieces)
    redacted, found = redact_text(text, KINDS)
    edges = [edge for each in found for edge in (each.start, each.end)]
    assert edges == sorted(edges) and all(each.start < each.end for each in found)
    rebuilt, position = [], 0
    for each in found:
        rebuilt.append(text[position : each.start] + each.placeholder)
        position = each.end
    assert "".join(rebuilt) + text[position:] == redacted
    values: dict[tuple[str, str], set[str]] = {}
    for each in found:
        values.setdefault((each.kind, text[each.start : each.end]), set()).add(each.placeholder)
    assert all(len(placeholders) == 1 for placeholders in values.values())


@given(st.lists(st.one_of(st.lists(PIECES, max_size=4).map("\n".join), st.text(max_size=60)), max_size=8))
def test_columns_find_what_texts_one_by_one_hold(texts: list[str]) -> None:
    """The hints must never hide a match: the fast way against the plain one."""
    fast = dict(find_all(pl.Series(texts, dtype=pl.String), EVERY_KIND))
    plain = {row: found for row, text in enumerate(texts) if (found := redact_text(text, EVERY_KIND)[1])}
    assert fast == plain


@given(st.lists(PIECES, max_size=8))
def test_redacting_twice_changes_nothing(pieces: list[str]) -> None:
    once = redact_text("\n".join(pieces), KINDS)[0]
    assert redact_text(once, KINDS)[0] == once


@given(st.ip_addresses(v=4))
def test_every_ordinary_ipv4_address_is_found(address: ipaddress.IPv4Address) -> None:
    assume(address.is_global and not address.is_multicast and not str(address).endswith(".0.0"))
    found = redact_text(f"server = '{address}'", KINDS)[1]
    assert [(each.kind, each.start, each.end) for each in found] == [("ip", 10, 10 + len(str(address)))]


@given(st.ip_addresses(v=6, network="2600::/12"))
def test_every_ordinary_ipv6_address_is_found(address: ipaddress.IPv6Address) -> None:
    assume(str(address).count(":") >= 3)
    text = f"server = '{address}'"
    assert [each.kind for each in redact_text(text, KINDS)[1]] == ["ip"]


def test_replace_takes_what_find_gives() -> None:
    spans = [Redaction(kind="key", start=1, end=3, placeholder="<KEY_1>")]
    assert replace("abcd", spans) == "a<KEY_1>d"
