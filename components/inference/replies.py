"""Replies of chat models, kept by what was asked: a second run asks only what has no reply yet.

One SQLite file below the state, for this user alone, that threads and processes share.
Not covered: a model that changed under its name; its replies stay until the file is deleted.
"""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import OvernightError
from components.core.private import folder, require_private

REPLIES = "replies.db"
LOCK_SECONDS = 60.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS replies (digest TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER, "
    "completion_tokens INTEGER) WITHOUT ROWID"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a chat model wrote, and the tokens that it counted; None where it did not say."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ReplyCache:
    """Replies by the digest of what was asked."""

    def __init__(self, path: Path) -> None:
        """Open `path`, made when absent. Raises OvernightError when it is no file of replies."""
        self._path = path
        folder(path.parent)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it as the umask says
        except OSError as error:
            raise self._unusable(error) from error
        require_private(path)
        self._run(_TABLE)

    def find(self, digest: str) -> Reply | None:
        """The reply that was kept, if there is one."""
        rows = self._run("SELECT text, prompt_tokens, completion_tokens FROM replies WHERE digest = ?", digest)
        if not rows:
            return None
        text, prompt_tokens, completion_tokens = rows[0]
        return Reply(text=text, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def keep(self, digest: str, reply: Reply) -> None:
        """Keep a reply, durable on return; the first one stays where two processes asked the same."""
        values = (digest, reply.text, reply.prompt_tokens, reply.completion_tokens)
        self._run("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)", *values)

    def _run(self, statement: str, *values: str | int | None) -> list[tuple[str, int | None, int | None]]:
        # A connection each time: none is shared by threads or inherited by a fork, and a request takes far longer.
        try:
            with closing(sqlite3.connect(self._path, timeout=LOCK_SECONDS)) as connection, connection:
                return connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> OvernightError:
        return OvernightError(
            f"{self._path} cannot be used for the replies of judges: {error}; free the disk, or delete the file and "
            "they are asked again"
        )
