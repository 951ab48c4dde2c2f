"""Read columns of a table that an earlier stage wrote, or say which of them it does not have."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from components.core.errors import ArtifactError


def read_columns(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of a Parquet file. Raises ArtifactError for one that older code wrote, without some of them."""
    schema = pl.read_parquet_schema(path)
    if absent := [name for name in columns if name not in schema]:
        raise ArtifactError(
            f"{path}: found columns {', '.join(schema)}; needed {', '.join(absent)} as well: older code wrote it; make "
            f"{path.parent} again with `overnight cycle --until tokenize`"
        )
    return pl.read_parquet(path, columns=list(columns))
