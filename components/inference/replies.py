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
    "completion_tokens INTEGER, finish_reason TEXT) WITHOUT ROWID"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a chat model wrote, the tokens that it counted, and why it ended; None where it did not say."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it reached its limit of tokens."""
        return self.finish_reason == "length"


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
        self._prepare()

    def find(self, digest: str) -> Reply | None:
        """The reply that was kept, if there is one."""
        rows = self._run(
            "SELECT text, prompt_tokens, completion_tokens, finish_reason FROM replies WHERE digest = ?", digest
        )
        if not rows:
            return None
        text, prompt_tokens, completion_tokens, finish_reason = rows[0]
        return Reply(
            text=text,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            finish_reason=finish_reason,
        )

    def keep(self, digest: str, reply: Reply) -> None:
        """Keep a reply, durable on return; the first one stays where two processes asked the same."""
        values = (digest, reply.text, reply.prompt_tokens, reply.completion_tokens, reply.finish_reason)
        self._run("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", *values)

    def _prepare(self) -> None:
        """Make the table where it is absent; one that older code made has no reasons yet."""
        try:
            with closing(sqlite3.connect(self._path, timeout=LOCK_SECONDS)) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_TABLE)
                columns = [row[1] for row in connection.execute("PRAGMA table_info(replies)")]
                if "finish_reason" not in columns:
                    connection.execute("ALTER TABLE replies ADD COLUMN finish_reason TEXT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _run(self, statement: str, *values: str | int | None) -> list[tuple[str, int | None, int | None, str | None]]:
        # A connection each time: none is shared by threads or inherited by a fork, and a request takes far longer.
        try:
            with closing(sqlite3.connect(self._path, timeout=LOCK_SECONDS)) as connection, connection:
                return connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> OvernightError:
        return OvernightError(
            f"{self._path} cannot be used for the replies of chat models: {error}; free the disk, or delete the file "
            "and they are asked again"
        )
