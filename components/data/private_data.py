"""What counts as private data in source code, as patterns.

Covers: e-mail addresses; IPv4 and IPv6 addresses, but not loopback, link-local, documentation ranges, whole networks,
masks and versions; keys by the patterns of detect-secrets where a key has a form of its own, some newer forms, and
private-key blocks.
Not covered: names of persons, postal addresses, telephone numbers; keys that only their entropy or the name of their
variable gives away (a third of all long strings in test suites do).
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A pattern of one kind (email, ip, key); `group` is the private part of a match, if `accept(text, start, end)`.

    `hint` is cheap, runs over a whole column in the regex engine of the columns, and is true wherever the pattern may
    match.
    """

    kind: str
    hint: str
    pattern: re.Pattern[str]
    accept: Callable[[str, int, int], bool]
    group: int = 0


# Top-level domains that people's addresses end in: any of two letters, and generic ones in wide use. Any word at all
# would also match `x@self.weight`, a matrix product.
_GENERIC_DOMAINS = (
    "com|org|net|edu|gov|mil|int|info|biz|name|pro|aero|coop|museum|jobs|mobi|travel|tel|cat|asia|dev|app|page|blog|"
    "cloud|online|site|store|shop|tech|xyz|club|email|company|solutions|systems|services|agency|studio|design|digital|"
    "media|group|team|work|world|life|live|space|science|academy|institute|university|software|engineering|network|"
    "zone|codes|tools|eco|earth|foundation|consulting|example|test|invalid|local|internal|lan|corp"
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+\-/])"
    r"[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.)+"
    rf"(?:[a-z]{{2}}|[A-Z]{{2}}|{_GENERIC_DOMAINS}|{_GENERIC_DOMAINS.upper()})"
    r"(?![A-Za-z0-9\-_(\[]|\.[A-Za-z0-9])"
)
# Accounts of services in SSH addresses, not of persons.
_SERVICE_ACCOUNTS = frozenset({"git", "hg", "svn"})
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.\-]){_OCTET}(?:\.{_OCTET}){{3}}(?![\w\-]|\.\w)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}|:)(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]|\.\d)")
# What stands before four numbers that are a release, an object identifier or a section, not an address.
_NUMBERING_BEFORE = re.compile(
    r"(?:\b(?:release|revision|ver|rev|build|v|firmware|driver|since|section|sec|chapter|clause|oid)"
    r"|version|identifier|§|==|>=|<=|~=|!=|\^)[\w\"']{0,12}"
    r"\s*[:=,(]{0,2}\s*[\"'(\[]?$",
    re.IGNORECASE,
)
_CONTEXT_CHARACTERS = 32
_PREFIX = re.compile(r"/(3[0-1]|[12]?\d)(?!\d)")
_PUBLISHED_IPV4 = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, in code mostly the metadata service of clouds
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "255.0.0.0/8",  # masks
    )
)
_PUBLISHED_IPV6 = tuple(ipaddress.IPv6Network(each) for each in ("::/127", "2001:db8::/32", "3fff::/20"))


def _is_person(text: str, start: int, end: int) -> bool:
    """Neither a service's account nor the user part of a URL, as `pass@host` in `https://user:pass@host`."""
    before = re.search(r"[^\s\"'<>]*$", text[max(0, start - 4 * _CONTEXT_CHARACTERS) : start])
    in_url = before is not None and "://" in before.group()
    return not in_url and text[start:end].partition("@")[0].lower() not in _SERVICE_ACCOUNTS


def _is_ipv4(text: str, start: int, end: int) -> bool:
    if _NUMBERING_BEFORE.search(text, max(0, start - _CONTEXT_CHARACTERS), start):
        return False
    address = ipaddress.IPv4Address(text[start:end])
    prefix = _PREFIX.match(text, end)
    if prefix and int(address) & ((1 << (32 - int(prefix[1]))) - 1) == 0:
        return False  # a whole network, such as 10.0.0.0/8, is nobody's address
    return not any(address in network for network in _PUBLISHED_IPV4)


def _is_ipv6(text: str, start: int, end: int) -> bool:
    """A valid address of one host, and neither a slice such as [1::2] nor a name such as c10::.

    That is: three groups, or two of which one has hex letters, and a digit somewhere.
    """
    found = text[start:end]
    groups = [group for group in found.split(":") if group]
    if len(groups) < 2:
        return False
    if len(groups) < 3 and not any(len(group) >= 3 and re.search("[A-Fa-f]", group) for group in groups):
        return False
    try:
        address = ipaddress.IPv6Address(found)
    except ValueError:
        return False
    return bool(re.search(r"\d", found)) and not any(address in network for network in _PUBLISHED_IPV6)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Not a piece of a longer word: tokens are cut out of base64 blobs otherwise."""
    return not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())


def _stands_alone_with_digit(text: str, start: int, end: int) -> bool:
    return _stands_alone(text, start, end) and re.search(r"\d", text[start:end]) is not None


def _is_jwt(text: str, start: int, end: int) -> bool:
    return bool(JwtTokenDetector.is_formally_valid(text[start:end]))


_TEMPLATE = re.compile(r"[{}<>%*\\]|^\.+$|^x+$", re.IGNORECASE)
_STAND_INS = frozenset(
    {"password", "passwd", "pass", "pwd", "pw", "passw0rd", "secret", "token", "key", "port", "redacted", "tiger"}
)


def _is_password(text: str, start: int, end: int) -> bool:
    """Not a place where a password would be put in, as in `://user:{password}@host` and `://user:password@host`, and
    not a default that everybody knows, as in `://guest:guest@host` and `://scott:tiger@host`."""
    found = text[start:end]
    if text[: start - 1].endswith(f"/{found}"):
        return False
    return found.lower() not in _STAND_INS and not _TEMPLATE.search(found)


def _always(text: str, start: int, end: int) -> bool:
    return True


_KEY_HEADER = r"-----BEGIN ([A-Z0-9 ]{0,20}PRIVATE KEY(?: BLOCK)?)-----"
_PRIVATE_KEY = re.compile(
    rf"{_KEY_HEADER}(?:.{{40,10000}}?-----END \1-----|(?:(?:\\[nr]|[\s\"'+])*[A-Za-z0-9+/=]{{40,}})+)", re.DOTALL
)


def _is_key_block(text: str, start: int, end: int) -> bool:
    """With the key's own base64 in it: programs that read keys name the header alone."""
    return re.search(r"[A-Za-z0-9+/=]{40}", text[start:end]) is not None


def _keys() -> Iterator[Rule]:
    """The rules for keys. The hint is the pattern itself where both regex engines read it alike."""

    def rule(pattern: str, *, hint: str = "", accept: Callable[[str, int, int], bool], group: int = 0) -> Rule:
        return Rule(kind="key", hint=hint or pattern, pattern=re.compile(pattern), accept=accept, group=group)

    yield Rule(kind="key", hint="-----BEGIN [A-Z0-9 ]*PRIVATE KEY", pattern=_PRIVATE_KEY, accept=_is_key_block)
    yield rule(AWSKeyDetector.denylist[0].pattern, accept=_stands_alone)
    yield Rule(
        kind="key",
        hint=r"(?i)aws.{0,20}(?:key|pwd|pw|password|pass|token)",
        pattern=AWSKeyDetector.denylist[1],
        accept=_always,
        group=1,
    )
    for pattern in GitLabTokenDetector.denylist:
        yield rule(
            pattern.pattern, hint="gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-|GR1348941", accept=_stands_alone
        )
    yield Rule(kind="key", hint="(?i)xox[abposr]-", pattern=SlackDetector.denylist[0], accept=_stands_alone)
    yield Rule(kind="key", hint=r"(?i)hooks\.slack\.com", pattern=SlackDetector.denylist[1], accept=_stands_alone)
    # The pattern's last part is lazy and would leave the signature behind; this makes it run to the token's end.
    yield rule(
        JwtTokenDetector.denylist[0].pattern + r"(?![A-Za-z0-9\-_.+/=])", hint=r"eyJ[A-Za-z0-9_=\-]+\.", accept=_is_jwt
    )
    yield rule(BasicAuthDetector.denylist[0].pattern, hint=r"://[^\s/]+:[^\s/]+@", accept=_is_password, group=1)
    yield rule(NpmDetector.denylist[0].pattern, hint=":_authToken=", accept=_always, group=1)
    for detector in (
        GitHubTokenDetector,
        StripeDetector,
        OpenAIDetector,
        AzureStorageKeyDetector,
        SquareOAuthDetector,
        SendGridDetector,
        PypiTokenDetector,
        TelegramBotTokenDetector,
    ):
        for pattern in detector.denylist:
            yield rule(pattern.pattern, accept=_stands_alone)
    for detector in (TwilioKeyDetector, MailchimpDetector, DiscordBotTokenDetector):
        for pattern in detector.denylist:
            yield rule(pattern.pattern, accept=_stands_alone_with_digit)
    # Forms that detect-secrets 1.5 does not know, or (Artifactory's) knows with the quotes around them.
    yield rule(r"AKC[a-zA-Z0-9]{10,}", accept=_stands_alone_with_digit)
    yield rule(r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}", accept=_stands_alone)
    yield rule(r"AIza[0-9A-Za-z_\-]{35}", accept=_stands_alone)
    yield rule(r"hf_[A-Za-z]{34}", accept=_stands_alone)
    yield rule(r"sk-(?:ant|proj|svcacct|admin)-[A-Za-z0-9_\-]{40,200}", accept=_stands_alone)


# In order of precedence: where two spans overlap, the one of the earlier rule stands.
RULES: tuple[Rule, ...] = (
    *_keys(),
    Rule(kind="email", hint=r"[A-Za-z0-9._%+\-]@[A-Za-z0-9]", pattern=_EMAIL, accept=_is_person),
    Rule(kind="ip", hint=r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", pattern=_IPV4, accept=_is_ipv4),
    Rule(kind="ip", hint=r"[0-9A-Fa-f:]:[0-9A-Fa-f]{0,4}:", pattern=_IPV6, accept=_is_ipv6),
)
