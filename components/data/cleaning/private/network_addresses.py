"""E-mail and network addresses.

Covers: e-mail addresses of ASCII letters under a known top-level domain; IPv4 and IPv6 addresses of one host.
Not covered: addresses written for people (jane at example dot com), quoted or non-ASCII local parts. Not private, since
they are nobody's: loopback, link-local IPv4, documentation ranges, whole networks, masks, multicast groups.

Four numbers with dots are a version as often as an address. The words and signs around them decide, and without any
the numbers themselves: versions have small ones.
"""

import ipaddress
import re

from components.data.cleaning.private.rule import Rule, line_after, line_before

# Top-level domains that people's addresses end in. Any word at all would also match `x@self.weight`, a matrix product,
# and `icon@2x.png`.
_COUNTRY_DOMAINS = (
    "a[cdefgilmoqrstuwxz]|b[abdefghijmnorstvwyz]|c[acdfghiklmnoruvwxyz]|d[ejkmoz]|e[cegrstu]|f[ijkmor]|"
    "g[abdefghilmnpqrstuwy]|h[kmnrtu]|i[delmnoqrst]|j[emop]|k[eghimnprwyz]|l[abcikrstuvy]|m[acdeghklmnopqrstuvwxyz]|"
    "n[acefgilopruz]|om|p[aefghklmnrstwy]|qa|r[eosuw]|s[abcdeghiklmnorstuvxyz]|t[cdfghjklmnortvwz]|u[agksyz]|"
    "v[aceginu]|w[fs]|y[et]|z[amw]"
)
_GENERIC_DOMAINS = (
    "com|org|net|edu|gov|mil|int|info|biz|name|pro|aero|coop|museum|jobs|mobi|travel|tel|cat|asia|dev|app|page|blog|"
    "cloud|online|site|store|shop|tech|xyz|club|email|company|solutions|systems|services|agency|studio|design|digital|"
    "media|group|team|work|world|life|live|space|science|academy|institute|university|software|engineering|network|"
    "zone|codes|tools|eco|earth|foundation|consulting|example|test|invalid|local|internal|lan|corp"
)
_TOP_LEVEL = f"[A-Z][a-z]|{_COUNTRY_DOMAINS}|{_GENERIC_DOMAINS}|{_COUNTRY_DOMAINS.upper()}|{_GENERIC_DOMAINS.upper()}"
_EMAIL = re.compile(
    r"(?:(?<=\\[nrt])|(?<=\\)(?![nrt])|(?<![A-Za-z0-9._%+\-@\\]))"  # \n in a string's source is no part of an address
    r"[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}"
    rf"(?:{_TOP_LEVEL})"
    r"(?:(?=E<gt>)|(?![A-Za-z0-9\-_(\[@]|\.[A-Za-z0-9]))"  # E<gt> is > in Perl's documentation
)
# Accounts of services in SSH addresses, not of persons.
_SERVICE_ACCOUNTS = frozenset({"git", "hg", "svn"})
# Names of algorithms end in the domain of who made them: chacha20-poly1305@openssh.com.
_ALGORITHM = re.compile(r"@openssh\.com$|-[^@]*@(?:ssh\.com|libssh\.org|putty\.projects\.tartarus\.org)$")
_IN_URL = re.compile(r"://[^\s/?#\"'<>]*$")


def _is_mailbox(match: re.Match[str]) -> bool:
    """Neither a service's account, nor an algorithm's name, nor the user part of a URL, as `pass@host` in `https://user:pass@host`."""
    if _IN_URL.search(line_before(match.string, match.start(), 128)) or _ALGORITHM.search(match.group()):
        return False
    return match.group().partition("@")[0].lower() not in _SERVICE_ACCOUNTS


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.])(?<![A-Za-z_]-){_OCTET}(?:\.{_OCTET}){{3}}(?!\w|-\w*[A-Za-z_]|\.\w)")
_IPV6 = re.compile(r"(?<![\w:.%\-])(?:[0-9A-Fa-f]{1,4}|:)(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]|\.\d)")
_IPV6_HINT = (
    r"[0-9A-Fa-f]::[0-9A-Fa-f]|::[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]|[0-9A-Fa-f]:[0-9A-Fa-f]{1,4}::"
    r"|(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]"
)
# What stands before four numbers that are a release, an object identifier or a section, not an address.
_NUMBERING_BEFORE = re.compile(
    r"(?:(?:\b(?:release|revision|ver|rev|build|v|firmware|driver|since|section|sec|chapter|clause|figure|table|oid|rfc"
    r"|tag|checkout|spec|standard|802\.1\w+(?:-\d{4})?|ecma-\d+|c\d\d)|versions?(?:added|changed)?|identifier|deprecated)s?(?:_\w{0,12})?|§)"
    r"[\"'>]{0,3}\s*(?::=|::|[:=,(]{0,2})\s*[\"'(\[]{0,2}$"
    r"|\b(?:upgrade|update|bump|patch|downgrade)\w*\b.{0,40}\b(?:to|from)\s$"
    r"|(?:==|>=|<=|~=|!=|\^|~)\s?$|\brfc ?\d{3,4},?\s(?:section )?$",
    re.IGNORECASE,
)
# Signs of an address: a scheme or an account right before, a port right after, or a word of networks on the line.
_PLACE_BEFORE = re.compile(r"(?://|\\\\|@|\bip[46]:)\[?$")
_PORT_AFTER = re.compile(r":\d{2,5}\b(?!\.)")
_NETWORK_WORD = re.compile(
    r"(?<![A-Za-z])i[pP](?:[vV]?[46])?(?![A-Za-z])|IP(?![a-z])|Ip(?:[A-Z_]|$)|(?<=[a-z])Ip\b|(?i:"
    r"ipv[46]|ipaddr|addr|host|gateway|inet|subnet|netmask|nameserver|resolver|forwarded|socket|iptables|traceroute|"
    r"network|remote|listen|router|whois|\bserver|\bclient|\bpeer|\bping|\bbind\b|\bproxy|\bdns|\bssh\b|"
    r"\bcurl\b|\ballow\b|\bdeny\b|\bvia\b)"
)
_OBJECT_IDENTIFIERS = ("1.3.6.1", "1.3.14.", "1.3.101.", "1.3.132.", "2.5.4.", "2.5.8.", "2.5.29.", "2.16.")
_RESOLVERS = ("8.8.8.8", "8.8.4.4", "1.1.1.1", "9.9.9.9", "4.2.2.2")
_PREFIX = re.compile(r"/(\d{1,3})(?!\d)")
# A heading of a document: the number, a dot, a word with a capital letter.
_HEADING_BEFORE, _HEADING_AFTER = re.compile(r"(?:^|>)[\s*#/]*$"), re.compile(r"^\.?\s+[A-Z]")
# Numbers around a letter are the path of a drawing (SVG), whose dots may fall as in an address.
_DRAWING = re.compile(r"\d[a-zA-Z]-?\d*\.\d|-?\d*\.\d+[ ,-]-?\d*\.\d+[ ,-]")
_PRIVATE_IPV4 = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
_NOBODYS_IPV4 = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, in code mostly the metadata service of clouds
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast groups
        "255.0.0.0/8",  # masks
    )
)
_NOBODYS_IPV6 = tuple(map(ipaddress.IPv6Network, ("::/127", "2001:db8::/32", "3fff::/20", "ff00::/8")))
_SMALL, _LARGE = 32, 100
_CONTEXT_CHARACTERS = 80


def _is_ipv4(match: re.Match[str]) -> bool:
    """An address of one host, told from a version by what stands around it."""
    text, (start, end) = match.string, match.span()
    address = ipaddress.IPv4Address(match.group())
    if any(address in network for network in _NOBODYS_IPV4):
        return False
    if address.packed.endswith(b"\0\0") or _is_network(address, text, end):
        return False
    before, after = line_before(text, start, _CONTEXT_CHARACTERS), line_after(text, end, _CONTEXT_CHARACTERS)
    if _DRAWING.search(before[-40:]) or _DRAWING.search(after[:40]):
        return False
    if _PLACE_BEFORE.search(before):
        return True
    if before.endswith("/") or _NUMBERING_BEFORE.search(before):
        return False  # `Chrome/91.0.4.7` and `/opt/oracle/12.1.0.2` too
    if _HEADING_BEFORE.search(before) and _HEADING_AFTER.search(after) and max(address.packed) < _SMALL:
        return False
    if _PORT_AFTER.match(text, end) or not _looks_like_version(address):
        return True
    return bool(_NETWORK_WORD.search(before) or _NETWORK_WORD.search(after))


def _is_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str, end: int) -> bool:
    """A whole network, such as 10.0.0.0/8, which is nobody's address."""
    prefix = _PREFIX.match(text, end)
    if prefix is None or int(prefix[1]) >= address.max_prefixlen:
        return False
    if int(prefix[1]) < 8:
        return True  # a share of something: no network is that large
    return int(address) & ((1 << (address.max_prefixlen - int(prefix[1]))) - 1) == 0


def _looks_like_version(address: ipaddress.IPv4Address) -> bool:
    """Three of the four numbers small and none large (one address of 400 has that), or an object identifier's
    beginning; not a private address, nor a resolver that everybody knows."""
    if any(address in network for network in _PRIVATE_IPV4) or str(address) in _RESOLVERS:
        return False
    small = sum(octet < _SMALL for octet in address.packed) >= 3 and max(address.packed) < _LARGE
    return small or str(address).startswith(_OBJECT_IDENTIFIERS)


def _is_ipv6(match: re.Match[str]) -> bool:
    """A valid address of one host, and neither a slice such as [1::2] nor a name such as c10::.

    That is: three groups, or two of which one has hex letters, and a digit somewhere.
    """
    text = match.group()
    groups = [group for group in text.split(":") if group]
    if len(groups) < 2 or (len(groups) == 8 and all(len(group) == 2 for group in groups)):
        return False  # eight pairs of digits are a hardware address
    if len(groups) < 3 and not any(len(group) >= 3 and re.search("[A-Fa-f]", group) for group in groups):
        return False
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    if "::" in text and not any(len(group) == 4 or re.search("[A-Fa-f]", group) for group in groups):
        return False  # numbers alone: a position, a colour, a sense of a word
    if not re.search(r"\d", text) or _is_network(address, match.string, match.end()):
        return False
    return not any(address in network for network in _NOBODYS_IPV6)


EMAIL = Rule(name="email", kind="email", hint=r"[A-Za-z0-9._%+\-]@[A-Za-z0-9]", pattern=_EMAIL, accept=_is_mailbox)
IPV4 = Rule(name="ipv4", kind="ip", hint=r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", pattern=_IPV4, accept=_is_ipv4)
IPV6 = Rule(name="ipv6", kind="ip", hint=_IPV6_HINT, pattern=_IPV6, accept=_is_ipv6)
