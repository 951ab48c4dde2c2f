"""Addresses that a config or a setting gives: none that runs a command, none that carries a password.

An address reaches the arguments of processes, which every user of the machine can list, and manifests and logs, which
are kept. Credentials have places of their own, which each client reads by itself.
Not covered: whether there is anything at an address.
"""

import re
from collections.abc import Sequence

# What only asks for a repository. Others run a command (ext::), or speak without any proof of who answers (git://).
GIT_SCHEMES = ("https", "ssh", "file")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"^[A-Za-z0-9+.-]*::")
_HOST = re.compile(r"^(?:[A-Za-z0-9+.-]+://)?(?:[^/@]*@)?-")
# What stands before the host. A password may hold a slash, so only `host/` or `host:port/` ends the search.
_USER = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://(?!(?:\[[\w.:%]+\]|[\w.-]*)(?::\d+)?(?:/|$))(.*)@")
_USER_OF_SCP = re.compile(r"^([^/@]*:[^@]*)@[^/@:]+[:/]")
_QUERY = re.compile(r"[?&;][^=&#]*(?:token|key|passw|secret|signature|credential)[^=&#]*=.", re.IGNORECASE)
_SHOWN = re.compile(r"(://)[^\s'\"]*@|(?<![^\s'\"])[^\s'\"/@:]+:[^\s'\"/@]+@|([?&;][^=&#\s'\"]+=)[^&#\s'\"]+")
GIT_ADVICE = "leave it out and give it to Git (`git config --global credential.helper store`), or use ssh with a key"


def masked(text: str) -> str:
    """A text with *** in the place of whatever an address in it has before its host, and of values in its query."""
    return _SHOWN.sub(lambda match: f"{match[1] or ''}***@" if match[2] is None else f"{match[2]}***", text)


def without_password(address: str, advice: str) -> str:
    """The address itself. Raises ValueError with `advice`, and without the address, when it carries credentials."""
    if _carries_credentials(address):
        raise ValueError(
            f"it carries a password or a token, which would be seen in processes, manifests and logs; {advice}"
        )
    return address


def git_address(address: str) -> str:
    """The address of a repository as it may be given to Git: a URL of GIT_SCHEMES, user@host:path, or a path.

    Raises ValueError for one that Git could take for an option or a command, and for one with a password.
    """
    return without_password(git_transport(address, GIT_SCHEMES), GIT_ADVICE)


def git_transport(address: str, schemes: Sequence[str]) -> str:
    """The address itself. Raises ValueError, without the address, for one that Git could take for an option or a
    command, and for a URL of none of these schemes."""
    needed = f"needed {', '.join(schemes[:-1])} or {schemes[-1]} URL, user@host:path, or a path"
    scheme = _SCHEME.match(address)
    if _HOST.match(address) or not address.isprintable():
        raise ValueError(f"it can be taken for an option of a command; {needed}")
    if _HELPER.match(address) or (scheme and scheme[1].lower() not in schemes):
        raise ValueError(f"its transport is not allowed; {needed}")
    return address


def _carries_credentials(address: str) -> bool:
    if _QUERY.search(address) or (not _SCHEME.match(address) and _USER_OF_SCP.match(address)):
        return True
    user = _USER.match(address)
    if user is None:
        return False
    # Over ssh a name alone is no secret; over http it may be a token.
    return ":" in user[1] or not address.lower().startswith(("ssh://", "postgresql", "mysql"))
