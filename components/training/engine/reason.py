"""Why something of the engine failed, for a note or a message."""


def reason_of(error: Exception, characters: int = 200) -> str:
    """Kind and message of an error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:characters]
