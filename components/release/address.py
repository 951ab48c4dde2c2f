"""Where the environment repository is: an address that Git may be given, and the credentials apart from it.

Covers: paths, file, http, https, ssh and git addresses, user@host:path. Git shows an address in its process's
arguments and in its messages, so what stands before the @ of an http address goes to it as a credential instead.
Refused: options, other transports (ext::, fd::), passwords in other addresses, queries, controls.
"""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from components.core.addresses import GIT_ADVICE, git_transport, without_password
from components.core.errors import ConfigError

WEB = ("http", "https")
SCHEMES = ("file", "git", "ssh", *WEB)
_NEEDED = "needed https://USER:PASSWORD@HOST/PATH, where special characters of both are written as %40 and the like"
_HELPER = '!f() { printf "username=%s\\npassword=%s\\n" "$OVERNIGHT_GIT_USER" "$OVERNIGHT_GIT_SECRET"; }; f'


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What Git is given: `url` may be shown, `variables` hold the credentials and are for Git's environment alone."""

    url: str
    variables: dict[str, str] = field(repr=False)


def parse_address(text: str) -> Address:
    """The address in a setting. Raises ConfigError, which does not repeat it, for one that Git must not be given."""
    try:
        scheme = git_transport(text, SCHEMES).partition("://")[0].lower()
        if "://" not in text or scheme not in WEB:
            return Address(url=without_password(text, GIT_ADVICE), variables={})
        return _web_address(text)
    except ValueError as error:
        raise ConfigError(f"OVERNIGHT_ENVIRONMENTS_URL: {error}") from None


def _web_address(text: str) -> Address:
    """Raises ValueError for what is not just a user, a password, a host and a path."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  raises for a password that is cut off at a character that ends an address's host
    except ValueError:
        raise ValueError(f"it cannot be read; {_NEEDED}") from None
    if not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"it has no host, or a query; {_NEEDED}")
    user, secret = unquote(parts.username or ""), unquote(parts.password or "")
    if not (user + secret).isprintable():
        raise ValueError(f"its user or password holds controls; {_NEEDED}")
    if "@" not in parts.netloc:
        return Address(url=text, variables={})
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Address(url=url, variables=_credentials(user, secret))


def _credentials(user: str, secret: str) -> dict[str, str]:
    """Git's environment with one credential helper, ours: another one would be told of a credential that it lacks."""
    settings = [("credential.helper", ""), ("credential.helper", _HELPER)]
    return {
        "OVERNIGHT_GIT_USER": user,
        "OVERNIGHT_GIT_SECRET": secret,
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{f"GIT_CONFIG_KEY_{place}": key for place, (key, _) in enumerate(settings)},
        **{f"GIT_CONFIG_VALUE_{place}": value for place, (_, value) in enumerate(settings)},
    }
