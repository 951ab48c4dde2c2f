"""Every read of a document is found, and no other: against a run that is played through step by step."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core import artifact
from components.core.config import StepConfig
from components.lineage.chain import Held, in_directory
from components.lineage.training_reads import reads, token_range
from components.tokens.shards.order import places_of_step, samples_at
from components.tokens.shards.source_mixture import Phase
from components.tokens.shards.windows import Source, Windows
from components.training.engine.batches.batch import number_of_batch
from components.training.parameters.mixture import MixtureConfig
from components.training.run.step_reads import steps_of_batches


class Seed(StepConfig):
    """What the reads depend on."""

    seed: int = 0
    mixture: MixtureConfig = MixtureConfig()


PHASES = ({"from_step": 0, "weights": {"a": 3, "b": 1}}, {"from_step": "decay", "weights": {"a": 0, "b": 1}})


def held(out: Path, stage: str, files: dict[str, pl.DataFrame | str], config: Seed, **statistics: Any) -> Held:
    """An artifact with these files; the lengths of documents are written as offsets too."""
    with artifact.create(out, stage=stage, config=config, inputs=[], code=Path(__file__)) as draft:
        for name, content in files.items():
            if isinstance(content, str):
                (draft.path / name).write_text(content)
            else:
                content.write_parquet(draft.path / name)
                offsets = np.cumsum([0, *content["tokens"]])
                np.save(draft.path / name.replace(".documents.parquet", ".offsets.npy"), offsets)
        draft.statistics = statistics
    found = in_directory(out)
    assert found is not None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A run: documents of these lengths, the first `first_source` of them from source a, the others from b."""

    lengths: list[int]
    first_source: int
    length: int
    batch: int
    steps: int
    seed: int
    mixed: bool = False
    decay_start: int = 0
    skipped: tuple[int, ...] = ()

    def write(self, folder: Path) -> tuple[Held, Held, Held]:
        """Token files, the model, and its plan."""
        described = pl.DataFrame({"id": [f"{i:064x}" for i in range(len(self.lengths))], "tokens": self.lengths})
        sizes = [sum(self.lengths[: self.first_source]), sum(self.lengths[self.first_source :])]
        files = {
            "train.documents.parquet": described,
            "validation.documents.parquet": described.clear(),
            "train.sources.json": json.dumps([["a", sizes[0]], ["b", sizes[1]]]),
        }
        tokens = held(folder / "tokens", "tokenize", files, Seed())
        plan = json.dumps({"sequence_length": self.length, "batch_samples": self.batch})
        mixture = MixtureConfig.model_validate_json(json.dumps({"phases": PHASES if self.mixed else []}))
        decided = {"decisions": [[self.decay_start, self.steps]], "skipped": list(self.skipped)}
        config = Seed(seed=self.seed, mixture=mixture)
        base = held(folder / "base", "pretrain", {}, config, steps=self.steps, decided=decided)
        return tokens, base, held(folder / "plan", "plan", {"plan.json": plan}, Seed())

    def play(self) -> Iterator[tuple[int, int, int, int]]:
        """step, epoch, window and its first token, of every read of the run in its order."""
        split = sum(self.lengths[: self.first_source])
        sources = [Source(name="a", start=0, stop=split), Source(name="b", start=split, stop=sum(self.lengths))]
        phases = None
        if self.mixed:
            cut = number_of_batch(self.decay_start, self.skipped) * self.batch if self.decay_start else 0
            phases = [Phase(first_place=cut, weights={"a": 0, "b": 1})]
            phases = [Phase(first_place=0, weights={"a": 3, "b": 1}), *phases] if cut else phases
        windows = Windows(sources, self.length, phases, self.seed)
        numbers = [number for number in range(self.steps + len(self.skipped) + 99) if number not in self.skipped]
        for step, number in enumerate(numbers[: self.steps]):
            read = windows.at(places_of_step(number, self.batch))
            firsts = windows.first_tokens(read.windows)
            if not self.mixed:
                count = (sum(self.lengths) - 1) // self.length
                epochs, samples = samples_at(places_of_step(number, self.batch), count, self.seed)
                assert (epochs == read.epochs).all() and (samples * self.length == firsts).all()
            yield from zip(
                [step] * self.batch, read.epochs.tolist(), read.windows.tolist(), firsts.tolist(), strict=True
            )


@st.composite
def runs(draw: st.DrawFn) -> Made:
    """Runs whose sources have a window each."""
    length = draw(st.integers(1, 16))
    lengths = draw(st.lists(st.integers(1, 40), min_size=2, max_size=12))
    made = Made(
        lengths=[length + 1, *lengths, length + 1],
        first_source=draw(st.integers(1, len(lengths) + 1)),
        length=length,
        batch=draw(st.integers(1, 4)),
        steps=draw(st.integers(0, 30)),
        seed=draw(st.integers(0, 3)),
        mixed=draw(st.booleans()),
        decay_start=draw(st.integers(0, 30)),
        skipped=tuple(sorted(draw(st.sets(st.integers(0, 40), max_size=6)))),
    )
    return made


@settings(max_examples=25, deadline=None)
@given(runs())
def test_reads_are_those_of_the_run(tmp_path_factory: pytest.TempPathFactory, made: Made) -> None:
    tokens, base, plan = made.write(tmp_path_factory.mktemp("run"))
    owner = np.repeat(np.arange(len(made.lengths)), made.lengths)
    played: dict[int, list[tuple[int, int, int]]] = {document: [] for document in range(len(made.lengths))}
    for step, epoch, window, first in made.play():
        for document in set(owner[first : first + made.length + 1].tolist()):
            played[document].append((step, epoch, window))
    for document, expected in played.items():
        found = token_range(tokens, f"{document:064x}")
        assert found is not None
        assert set(owner[found.start : found.end].tolist()) == {document}
        assert found.end - found.start == made.lengths[document]
        read = reads(found, base, plan, tokens)
        assert list(zip(read.steps.tolist(), read.epochs.tolist(), read.windows.tolist(), strict=True)) == expected
        assert read.num_steps == made.steps


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 60), max_size=20).map(sorted))
def test_steps_and_batches_are_each_others_inverse(skipped: list[int]) -> None:
    numbers = np.array([number_of_batch(step, skipped) for step in range(60)])
    assert not set(numbers.tolist()) & set(skipped) and (np.diff(numbers) > 0).all()
    steps, is_read = steps_of_batches(numbers, skipped)
    assert is_read.all() and steps.tolist() == list(range(60))
    assert not steps_of_batches(np.array(skipped, dtype=np.int64), skipped)[1].any()


def test_a_held_out_document_and_one_that_is_not_there(tmp_path: Path) -> None:
    described = pl.DataFrame({"id": ["a", "b"], "tokens": [5, 7]})
    files: dict[str, pl.DataFrame | str] = {
        "train.documents.parquet": described[:1],
        "validation.documents.parquet": described[1:],
    }
    tokens = held(tmp_path / "tokens", "tokenize", files, Seed())
    found = token_range(tokens, "b")
    assert found is not None and (found.split, found.document, found.start, found.end) == ("validation", 0, 0, 7)
    assert token_range(tokens, "c") is None


def test_tokens_behind_the_last_whole_window_are_in_none(tmp_path: Path) -> None:
    made = Made(lengths=[12, 9, 3], first_source=1, length=10, batch=1, steps=9, seed=0)
    tokens, base, plan = made.write(tmp_path)
    last = token_range(tokens, f"{2:064x}")
    assert last is not None and reads(last, base, plan, tokens).steps.size == 0
