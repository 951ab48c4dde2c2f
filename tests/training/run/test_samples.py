"""A worker's batches: shared by workers, mixed anew from a decided decay on, and silent about skipped documents."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.core.errors import DataError
from components.tokens import vocabulary
from components.tokens.encoding.special import SPECIAL_TOKENS
from components.tokens.shards.token_store import TokenWriter
from components.training.config import PlanConfig, PretrainConfig
from components.training.engine.batches.batch import IGNORED
from components.training.engine.batches.prefetch import Prefetched
from components.training.engine.schedule import Schedule
from components.training.plan import plan_fixed
from components.training.run.samples import Samples
from components.training.run.step_reads import check_reading, reads_by_source
from components.training.run.worker_input import Work

LENGTHS = np.full(60, 50)
MIXTURE = {
    "phases": [
        {"from_step": 0, "weights": {"code": 1, "notes": 1}},
        {"from_step": "decay", "weights": {"code": 0, "notes": 1}},
    ]
}
PLAN = PlanConfig.model_validate_json(
    json.dumps({"mode": "fixed", "sequence_length": 16, "fixed": {"steps": 40, "size": {"layers": 2, "width": 64}}})
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty documents of 50 tokens, forty of them from one source and twenty from another."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "tokenizer").mkdir()
    vocabulary.write(vocabulary.learn(["def f(): pass\n"] * 100, 300), folder / "tokenizer")
    tokens = np.random.default_rng(0).integers(len(SPECIAL_TOKENS), 300, LENGTHS.sum())
    tokens[np.cumsum(LENGTHS) - 1] = 0
    with TokenWriter(folder, "train", vocabulary_size=300, shard_tokens=700) as writer:
        writer.append(tokens[:2000], LENGTHS[:40], "code")
        writer.append(tokens[2000:], LENGTHS[40:], "notes")
    pl.DataFrame({"id": [f"d{number:02}" for number in range(60)]}).write_parquet(folder / "train.documents.parquet")
    return folder


def work_of(folder: Path, **config: Any) -> Work:
    return Work(
        config=PretrainConfig.model_validate_json(json.dumps(config)),
        plan=plan_fixed(PLAN, 300),
        tokens=folder,
        tokenizer=folder / "tokenizer",
        run=folder,
        training_ends_at=None,
        threads=1,
    )


@pytest.mark.parametrize("world_size", [2, 4])
def test_workers_share_the_batch_of_one(folder: Path, world_size: int) -> None:
    work = work_of(folder, mixture=MIXTURE, skip={"batches": [[1, 2]]})
    whole = Samples(work, 0, 1)
    shares = [Samples(work, rank, world_size) for rank in range(world_size)]
    for step in (0, 1, 7):
        one, parts = whole(step), [each(step) for each in shares]
        for name in ("inputs", "labels", "positions", "sources"):
            assert (np.concatenate([getattr(part, name) for part in parts]) == getattr(one, name)).all()


def test_a_decay_that_is_decided_changes_what_is_read_from_then_on_alone(folder: Path) -> None:
    work, schedule = work_of(folder, mixture=MIXTURE), Schedule(warmup_steps=0, final_share=0.1)
    samples = Samples(work, 0, 1, schedule)
    with Prefetched(samples, samples.basis) as batches:
        before = [batches(step) for step in range(6)]
        assert {0, 1} == {int(each) for batch in before for each in batch.sources}
        schedule.decide(6, 20)
        after = [batches(step) for step in range(6, 12)]
    assert {1} == {int(each) for batch in after for each in batch.sources}
    assert [step for step in range(12) if samples.begins_phase(step)] == [6]
    known = Schedule(warmup_steps=0, final_share=0.1)
    known.decide(6, 20)
    replayed = Samples(work, 0, 1, known)
    for step, batch in enumerate([*before, *after]):
        assert (replayed(step).inputs == batch.inputs).all()
    read = reads_by_source(samples.windows(), steps=12, batch_samples=8, skipped=[])
    assert sum(each["tokens"] for each in read.values()) == 12 * 8 * 16
    counted = np.bincount(np.concatenate([batch.sources for batch in [*before, *after]]))
    assert [each["tokens"] for each in read.values()] == (counted * 16).tolist()
    assert read["notes"]["epochs"] == pytest.approx(counted[1] / 62, abs=1e-6)


def test_nothing_is_asked_of_skipped_documents_and_nothing_else_moves(folder: Path) -> None:
    plain, masked = (
        Samples(work_of(folder, objectives={"infill": {"rate": 0.0}}, skip={"documents": ids}), 0, 1)
        for ids in ([], ["d03", "d41"])
    )
    num_hidden = 0
    for step in range(30):
        one, other = plain(step), masked(step)
        hidden = np.isin(plain.documents(step, one.labels.shape), [3, 41])
        assert (one.inputs == other.inputs).all() and (other.labels[~hidden] == one.labels[~hidden]).all()
        assert (other.labels[hidden] == IGNORED).all()
        num_hidden += int(hidden.sum())
    assert num_hidden > 50
    tokens = np.concatenate([plain.store.read(0, 2000), plain.store.read(2000, 3000)])
    batch, rows = plain(0), plain.documents(0, (8, 16))
    windows = [each["window"] for each in plain.described(0)]
    for row, window in enumerate(windows):
        assert (tokens[window * 16 + 1 : window * 16 + 17] == batch.labels[row]).all()
        assert (np.arange(window * 16 + 1, window * 16 + 17) // 50 == rows[row]).all()


def test_what_does_not_fit_is_one_line(folder: Path) -> None:
    for config, message in (
        ({"mixture": {"phases": [{"weights": {"code": 1}}]}}, "pretrain.mixture: found no weight for the source notes"),
        (
            {"mixture": {"phases": [{"weights": {"code": 1, "notes": 1, "web": 1}}]}},
            "pretrain.mixture: found a weight for the source web; the tokens have: code, notes",
        ),
        ({"skip": {"documents": ["d99"]}}, "pretrain.skip.documents: .* no document has the id d99; leave it out"),
    ):
        with pytest.raises(DataError, match=message):
            check_reading(work_of(folder, **config).config, folder, 16)
    phases = [{"from_step": 5, "weights": {}}]
    with pytest.raises(ValueError, match="needed 0 first, then rising steps, and decay at most as the last"):
        work_of(folder, mixture={"phases": phases})
    with pytest.raises(ValueError, match="leave it in; needed more"):
        work_of(folder, spikes={"rewind_batches": 5})
