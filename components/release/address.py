"""Where the environment repository is: an address that Git may be given, and the credentials apart from it.

Covers: paths, file, http, https, ssh and git addresses, user@host:path. Git shows an address in its process's
arguments and in its messages, so what stands before the @ of an http address goes to it as a credential instead.
Refused: options, other transports (ext::, fd::), passwords in other addresses, queries, controls.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from components.core.errors import ConfigError

SCHEMES = ("file", "git", "http", "https", "ssh")
_NEEDED = (
    "needed a path, an https://, http://, ssh://, git:// or file:// address, or user@host:path, where a password's "
    "special characters are written as %40 and the like"
)
_HELPER = '!f() { printf "username=%s\\npassword=%s\\n" "$OVERNIGHT_GIT_USER" "$OVERNIGHT_GIT_SECRET"; }; f'


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What Git is given: `url` may be shown, `variables` hold the credentials and are for Git's environment alone."""

    url: str
    variables: dict[str, str] = field(repr=False)


def parse_address(text: str) -> Address:
    """The address in a setting. Raises ConfigError, which does not repeat it, for one that Git must not be given."""
    scheme, separator, rest = text.partition("://")
    if not text.isprintable() or text.startswith("-") or re.match(r"[\w+.-]+::", text):
        raise _refusal("is an option, another transport, or holds controls")
    if not separator:
        if re.match(r"[^/]*:[^/]*@", text):
            raise _refusal("holds a password, which only http takes")
        return Address(url=text, variables={})
    if scheme.lower() not in SCHEMES or rest.startswith("-"):
        raise _refusal("has another scheme")
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  raises for a password that is cut off at a character that ends an address's host
    except ValueError:
        raise _refusal("cannot be read") from None
    web = parts.scheme in ("http", "https")
    if web and (not parts.hostname or parts.query or parts.fragment):
        raise _refusal("has no host, or a query")
    if "@" not in parts.netloc or (parts.scheme == "ssh" and parts.password is None):
        return Address(url=text, variables={})
    if not web:
        raise _refusal("holds a password, which only http takes")
    return Address(
        url=parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
        variables=_credentials(unquote(parts.username or ""), unquote(parts.password or "")),
    )


def _credentials(user: str, secret: str) -> dict[str, str]:
    """Git's environment with one credential helper, ours: another one would be told of a credential that it lacks."""
    if not (user + secret).isprintable():
        raise _refusal("holds controls")
    settings = [("credential.helper", ""), ("credential.helper", _HELPER)]
    return {
        "OVERNIGHT_GIT_USER": user,
        "OVERNIGHT_GIT_SECRET": secret,
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{f"GIT_CONFIG_KEY_{place}": key for place, (key, _) in enumerate(settings)},
        **{f"GIT_CONFIG_VALUE_{place}": value for place, (_, value) in enumerate(settings)},
    }


def _refusal(why: str) -> ConfigError:
    return ConfigError(f"OVERNIGHT_ENVIRONMENTS_URL {why}; {_NEEDED}")
