"""Recall and precision of near-duplicate detection against every pair of a real sample, compared exactly.

    python -m benchmarks.brute_force [--documents 4000] [--shingle 5]

The oracle shares no code with components.data.cleaning.deduplicate: words by a regular expression, shingles as tuples,
and for each document the number of shingles in common with every other, by an inverted index.
"""

import argparse
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.installed import sample
from components.data.clean import write_judged
from components.data.cleaning.deduplicate import estimate_bound, signatures
from components.data.cleaning.near_duplicates import find_near_duplicates
from components.data.config import DuplicateConfig
from components.data.documents.document import SCHEMA, document_id

_WORD = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")


def exact_pairs(texts: Sequence[str], shingle_tokens: int, similarity: float) -> dict[tuple[int, int], float]:
    """Every pair (smaller, larger) of texts of at least this Jaccard similarity, with it."""
    numbers: dict[tuple[bytes, ...], int] = {}
    sets = []
    for text in texts:
        words = _WORD.findall(text.encode())
        found = {tuple(words[at : at + shingle_tokens]) for at in range(len(words) - shingle_tokens + 1)}
        sets.append(np.array([numbers.setdefault(each, len(numbers)) for each in found], np.int64))
    sizes = np.array([len(each) for each in sets])
    shingles, owners = np.concatenate(sets), np.repeat(np.arange(len(sets)), sizes)
    order = np.argsort(shingles, kind="stable")
    owners = owners[order]
    limits = np.searchsorted(shingles[order], np.arange(len(numbers) + 1))
    pairs = {}
    for row, own in enumerate(sets):
        own = own[limits[own + 1] - limits[own] > 1]
        if not len(own):
            continue
        common = np.bincount(
            np.concatenate([owners[limits[each] : limits[each + 1]] for each in own]), minlength=len(sets)
        )
        alike = common / np.maximum(sizes + sizes[row] - common, 1)
        for other in np.flatnonzero(alike >= similarity):
            if other > row:
                pairs[row, int(other)] = float(alike[other])
    return pairs


def in_turn(function: Callable[..., Any], items: Sequence[Any], *shared: Any) -> Iterator[tuple[int, Any]]:
    """run_tasks without Ray: one after the other, here."""
    for place, item in enumerate(items):
        yield place, function(item, *shared)


def found_clusters(texts: Sequence[str], config: DuplicateConfig) -> tuple[list[int], dict[int, int]]:
    """By the code of clean: the cluster of each text, as its smallest row in the order of ids, and for each dropped
    text the one that stays in its place."""
    order = sorted(range(len(texts)), key=lambda row: document_id(texts[row]))
    rows = [
        (document_id(texts[row]), texts[row], str(row), "p", "1", "MIT", "python", "s", len(texts[row]))
        for row in order
    ]
    documents = pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(redactions=pl.lit(0, pl.Int32))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pieces = [documents[start : start + 500] for start in range(0, documents.height, 500)]
        records = [write_judged(folder, number, piece, config)["records"] for number, piece in enumerate(pieces)]
        members = find_near_duplicates(folder, len(pieces), sum(records), config, in_turn).members
    row_of = {documents["id"][place]: row for place, row in enumerate(order)}
    clusters, kept = list(range(len(texts))), {}
    for member, cluster, kept_id in members.select("id", "cluster", "kept_id").iter_rows():
        clusters[row_of[member]] = row_of[cluster]
        if kept_id is not None:
            kept[row_of[member]] = row_of[kept_id]
    return clusters, kept


def measure(texts: Sequence[str], config: DuplicateConfig) -> dict[str, float]:
    """Counts and shares, in one table."""
    truth = exact_pairs(texts, config.shingle_tokens, config.similarity)
    clusters, kept = found_clusters(texts, config)
    near = exact_pairs(texts, config.shingle_tokens, 0.01 * round(config.similarity * 50)) | truth
    together = sum(clusters[one] == clusters[two] for one, two in truth)
    dropped_rightly = sum((min(each), max(each)) in truth for each in kept.items())
    matrix = _signatures(texts, config)
    bound = estimate_bound(config.similarity, config.num_permutations)
    estimates = {pair: float((matrix[pair[0]] == matrix[pair[1]]).mean()) for pair in near}
    by_signature = [pair for pair, estimate in estimates.items() if estimate >= config.similarity]
    return {
        "documents": len(texts),
        "pairs_at_bound": len(truth),
        "recall_same_cluster": together / max(1, len(truth)),
        "recall_signature_margin": sum(estimates[pair] >= bound for pair in truth) / max(1, len(truth)),
        "dropped": len(kept),
        "precision_of_drops": dropped_rightly / max(1, len(kept)),
        "recall_if_by_signature": sum(pair in truth for pair in by_signature) / max(1, len(truth)),
        "precision_if_by_signature": sum(pair in truth for pair in by_signature) / max(1, len(by_signature)),
    }


def _signatures(texts: Sequence[str], config: DuplicateConfig) -> NDArray[np.uint32]:
    return signatures(
        texts, shingle_tokens=config.shingle_tokens, num_permutations=config.num_permutations, seed=config.seed
    )


def main() -> None:
    """Print the measures of one sample."""
    parser = argparse.ArgumentParser(prog="benchmarks.brute_force", description=__doc__)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--similarity", type=float, default=DuplicateConfig.model_fields["similarity"].default)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = DuplicateConfig.model_validate({"similarity": arguments.similarity})
    for name, value in measure(sample(arguments.documents, seed=arguments.seed), config).items():
        print(f"{name:26} {value:.5g}")


if __name__ == "__main__":
    main()
