"""Errors that a person should read, as a tree. The exit code is the one of the command that fails with it.

OvernightError          1   a stage or a service failed
├── ConfigError         2   params.yaml, a profile, a setting or an argument cannot be used
├── DataError           2   the input data cannot be used
├── ArtifactError       1   an artifact is absent, unfinished or not what its manifest says
├── BusyError           3   somebody else holds the workspace or a port
└── GateRefused         4   the model was not good enough to be promoted

A message says what was found, what was needed, and what to do. One line.
"""


class OvernightError(Exception):
    """Anything that ends a command with one clear line."""

    exit_code = 1


class ConfigError(OvernightError):
    """A parameter, profile, setting or argument that cannot be used."""

    exit_code = 2


class DataError(OvernightError):
    """Input data that cannot be used."""

    exit_code = 2


class ArtifactError(OvernightError):
    """An artifact that is absent, unfinished or altered."""


class BusyError(OvernightError):
    """A lock or a port that somebody else holds."""

    exit_code = 3


class GateRefused(OvernightError):  # noqa: N818  a verdict, not a fault
    """A model that the gate did not let through."""

    exit_code = 4


def one_line(said: object, characters: int = 200) -> str:
    """Any text or error on one line, cut, without anything that cannot be written or that a terminal obeys; the name of
    an error that says nothing."""
    text = str(said) or (type(said).__name__ if isinstance(said, BaseException) else "")
    text = text[: 10 * characters].encode("utf-8", "backslashreplace").decode()
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:characters]
