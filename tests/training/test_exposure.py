"""Every read of a document is found, and no other: against a run that is played through step by step."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core import artifact
from components.core.config import StepConfig
from components.core.lineage import Held, in_directory
from components.tokens.order import places_of_step, samples_at
from components.training.exposure import reads, token_range, windows_of


class Seed(StepConfig):
    """What the reads depend on."""

    seed: int = 0


def held(out: Path, stage: str, files: dict[str, pl.DataFrame | str], steps: int = 0, seed: int = 0) -> Held:
    """An artifact with these files; the lengths of documents are written as offsets too."""
    with artifact.create(out, stage=stage, config=Seed(seed=seed), inputs=[], code=Path(__file__)) as draft:
        for name, content in files.items():
            if isinstance(content, str):
                (draft.path / name).write_text(content)
            else:
                content.write_parquet(draft.path / name)
                offsets = np.cumsum([0, *content["tokens"]])
                np.save(draft.path / name.replace(".documents.parquet", ".offsets.npy"), offsets)
        draft.statistics = {"steps": steps}
    found = in_directory(out)
    assert found is not None
    return found


def run_of(
    folder: Path, lengths: list[int], *, sequence_length: int, batch: int, steps: int, seed: int
) -> tuple[Held, Held, Held]:
    """Token files of documents of these lengths, the model of a run over them, and its plan."""
    described = pl.DataFrame({"id": [f"{i:064x}" for i in range(len(lengths))], "tokens": lengths})
    files = {"train.documents.parquet": described, "validation.documents.parquet": described.clear()}
    tokens = held(folder / "tokens", "tokenize", files)
    plan = f'{{"sequence_length": {sequence_length}, "batch_samples": {batch}}}'
    base = held(folder / "base", "pretrain", {}, steps=steps, seed=seed)
    return tokens, base, held(folder / "plan", "plan", {"plan.json": plan})


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=12),
    st.integers(1, 16),
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(0, 3),
)
def test_reads_are_those_of_the_run(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, batch: int, steps: int, seed: int
) -> None:
    num_windows = (sum(lengths) - 1) // length
    if num_windows < 1:
        return
    folder = tmp_path_factory.mktemp("run")
    tokens, base, plan = run_of(folder, lengths, sequence_length=length, batch=batch, steps=steps, seed=seed)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    played: dict[int, list[tuple[int, int, int]]] = {document: [] for document in range(len(lengths))}
    for step in range(steps):
        epochs, samples = samples_at(places_of_step(step, batch), num_windows, seed)
        for epoch, sample in zip(epochs.tolist(), samples.tolist(), strict=True):
            for document in set(owner[sample * length : sample * length + length + 1].tolist()):
                played[document].append((step, epoch, sample))
    for document, expected in played.items():
        found = token_range(tokens, f"{document:064x}")
        assert found is not None
        assert (
            set(owner[found.start : found.end].tolist()) == {document} and found.end - found.start == lengths[document]
        )
        read = reads(found, base, plan)
        assert list(zip(read.steps.tolist(), read.epochs.tolist(), read.windows.tolist(), strict=True)) == expected
        assert read.num_steps == steps


def test_a_held_out_document_and_one_that_is_not_there(tmp_path: Path) -> None:
    described = pl.DataFrame({"id": ["a", "b"], "tokens": [5, 7]})
    files = {"train.documents.parquet": described[:1], "validation.documents.parquet": described[1:]}
    tokens = held(tmp_path / "tokens", "tokenize", files)
    found = token_range(tokens, "b")
    assert found is not None and (found.split, found.document, found.start, found.end) == ("validation", 0, 0, 7)
    assert token_range(tokens, "c") is None


def test_tokens_behind_the_last_whole_window_are_in_none(tmp_path: Path) -> None:
    tokens, base, plan = run_of(tmp_path, [21, 3], sequence_length=10, batch=1, steps=9, seed=0)
    last = token_range(tokens, f"{1:064x}")
    assert last is not None and not len(windows_of(last, 10))
    assert reads(last, base, plan).steps.size == 0
