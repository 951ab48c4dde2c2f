"""Feedback as rows: the columns of an accept or reject event, and what the suite `feedback` judges of them.

Reads   events as SCHEMA has them, from whatever collects them
Covers: which columns there are, what they hold, which events count more than once, how many a user has. A cap per user
is a number, not a share: about 250 poisoned documents suffice at any size of the corpus (Souly et al. 2025,
arXiv:2510.07192), so shares protect nobody.
Not covered: whether a person meant what they clicked; private data in prompts, which clean redacts.
"""

import polars as pl

SCHEMA = pl.Schema(
    {
        "event_id": pl.String,  # made by the API, unique
        "kind": pl.String,  # accept or reject
        "request_id": pl.String,  # x-request-id of the completion that it answers
        "model_digest": pl.String,  # digest of the model that answered, hex
        "user": pl.String,  # a pseudonym, equal for equal users; never a name or an address
        "at": pl.Float64,  # seconds since the epoch, by the API's clock
        "prompt": pl.String,
        "completion": pl.String,  # as it was shown
    }
)


def feedback_statistics(events: pl.DataFrame) -> pl.DataFrame:
    """What the suite `feedback` judges, one row per event in the order of the frame, without its texts.

    event_id, kind, request_id, model_digest, user, at, and: first (no newer event of this user about this request);
    has_prompt and has_completion (flags; null texts have none); text_bytes (of both); rank_of_user (1 for the newest
    of the user's events that are first).
    """
    newest_first = pl.struct(-pl.col("at"), pl.col("event_id")).rank("ordinal")
    numbered = events.with_columns(first=newest_first.over("user", "request_id") == 1)
    return numbered.select(
        *("event_id", "kind", "request_id", "model_digest", "user", "at", "first"),
        *(pl.col(text).str.contains(r"\S").fill_null(False).alias(f"has_{text}") for text in ("prompt", "completion")),
        text_bytes=sum(pl.col(text).str.len_bytes().fill_null(0).cast(pl.Int64) for text in ("prompt", "completion")),
        rank_of_user=pl.when("first").then(newest_first.over("user", "first")).cast(pl.Int64),
    )
