"""How much of what models are measured on stands in their training documents, item by item.

The n-grams are those that clean drops documents by (components/data/cleaning/decontaminate.py), counted here in what
was trained on in the end. An item's overlap is the largest share of the n-grams of one of its passages that one
training document holds: prompt, solution and test of a program, the whole text of a held-out document; null for an item
without a passage long enough to tell. Lines and functions of a document have its overlap.
Not covered: other names for variables, translations, paraphrases; shares spread over several training documents.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from components.core.columns import read_columns
from components.data.cleaning.decontaminate import PARTS, Items, prepare
from components.data.cleaning.decontaminate import contaminated as matches_in
from components.data.documents.document import parts
from components.evaluation.comparison.pairs import group_of
from components.evaluation.config import ContaminationConfig
from components.evaluation.measures.functional import Suite

DOCUMENTS = "held_out_documents"
BATCH_DOCUMENTS = 1000
SCHEMA = pl.Schema({"suite": pl.String, "item": pl.String, "overlap": pl.Float64, "contaminated": pl.Boolean})


def training_texts(source: Path, held_out: pl.Series) -> Iterator[list[str]]:
    """The texts of a data/clean artifact that were not held out (by id), in batches."""
    for path in parts(source):
        rows = read_columns(path, ["id", "text"]).filter(~pl.col("id").is_in(held_out.implode()))
        for batch in rows.iter_slices(BATCH_DOCUMENTS):
            yield batch["text"].to_list()


def looked_for(
    documents: pl.DataFrame, suites: Sequence[Suite], training: Iterable[list[str]], config: ContaminationConfig
) -> pl.DataFrame:
    """suite, task_id, overlap of every held-out document (id, text; the suite is DOCUMENTS) and every program, in
    training texts; those without a passage to look for are left out."""
    prepared = prepare(_passages(documents, suites), {}, ngram_words=config.ngram_words, min_words=config.min_words)
    lengths = prepared.passages.group_by("suite", "task_id").agg(pl.col("ngrams").max()).filter(pl.col("ngrams") > 0)
    passages = lengths.join(_largest(prepared, training), on=["suite", "task_id"], how="left")
    return passages.select("suite", "task_id", pl.col("overlap").fill_null(0.0))


def overlaps(
    items: pl.DataFrame, passages: pl.DataFrame, suites: Sequence[Suite], config: ContaminationConfig
) -> pl.DataFrame:
    """suite, item, overlap, contaminated of every item of the evaluation (columns suite, item), in their order.

    `passages` is what `looked_for` says; items are named after a held-out document, or name it as their group.
    """
    unique_items = items.select("suite", "item").unique(maintain_order=True)
    programs = {suite.name for suite in suites}
    known = unique_items.with_columns(
        passage_of=pl.when(pl.col("suite").is_in(programs)).then("suite").otherwise(pl.lit(DOCUMENTS)),
        task_id=pl.when(pl.col("suite").is_in(programs)).then("item").otherwise(group_of(pl.col("item"))),
    )
    joined = known.join(
        passages, left_on=["passage_of", "task_id"], right_on=["suite", "task_id"], how="left", maintain_order="left"
    )
    marked = joined.with_columns(contaminated=(pl.col("overlap") >= config.min_share).fill_null(value=False))
    return marked.select(SCHEMA.names()).cast(SCHEMA)


def counts(overlap: pl.DataFrame) -> dict[str, dict[str, int]]:
    """By suite: items, those with no passage to look for, those that are contaminated."""
    by_suite = overlap.group_by("suite", maintain_order=True).agg(
        items=pl.len(), items_too_short=pl.col("overlap").null_count(), items_contaminated=pl.col("contaminated").sum()
    )
    return {str(each.pop("suite")): each for each in by_suite.to_dicts()}


def _passages(documents: pl.DataFrame, suites: Sequence[Suite]) -> pl.DataFrame:
    """suite, task_id, part, text of all that is looked for."""
    rows = [
        (suite.name, task.task_id, part, "\n".join(getattr(task, field) or "" for field in fields))
        for suite in suites
        for task in suite.tasks
        for part, fields in PARTS.items()
    ]
    programs = pl.DataFrame(rows, schema=["suite", "task_id", "part", "text"], orient="row")
    whole = documents.select(
        pl.lit(DOCUMENTS).alias("suite"), pl.col("id").alias("task_id"), pl.lit("document").alias("part"), "text"
    )
    return pl.concat([whole, programs.cast(whole.schema)])


def _largest(prepared: Items, training: Iterable[list[str]]) -> pl.DataFrame:
    """suite, task_id, overlap: the largest over all training documents; items without any overlap are left out."""
    largest = pl.DataFrame(schema={"suite": pl.String, "task_id": pl.String, "overlap": pl.Float64})
    if not prepared.grams.height:
        return largest
    for texts in training:
        matches = matches_in(prepared, texts, 0.0).select(largest.columns)
        largest = pl.concat([largest, matches]).group_by("suite", "task_id").agg(pl.col("overlap").max())
    return largest
