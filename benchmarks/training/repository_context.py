"""What related files before a held-out document give, to a model trained with groups of them and to one without.

    python -m benchmarks.training.repository_context prepare FOLDER
    python -m benchmarks.training.repository_context train FOLDER --share 0.5 --steps 400 --seed 0
    python -m benchmarks.training.repository_context measure FOLDER

Trains small decoders by the stage's own worker, from whole packages of the running environment, and scores the same
tokens of the same held-out documents below nothing, their path, related files (components.evaluation.measures.
likelihood), and as many files of other packages: what is gained by relation and not by any text at all.
Files that share one of 32 bands of their MinHash signatures with an earlier one are left out.
Not covered: models that are large enough, or trained for long enough, to be of use.
"""

import argparse
import hashlib
import json
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from components.core import artifact
from components.core.config import StepConfig
from components.core.events import Events
from components.core.figures.intervals import bootstrap
from components.data.cleaning.deduplicate import band_hashes, signatures
from components.data.config import DuplicateConfig
from components.evaluation.config import RepositoryConfig
from components.evaluation.measures.likelihood import RelatedDocument, context_bits, related_documents
from components.inference.open import open_engine
from components.inference.repository_context import RelatedFile
from components.tokens import vocabulary
from components.tokens.config import TokenizeConfig
from components.tokens.encoding.codec import TextCodec
from components.tokens.tokenize import write_all
from components.training.config import PlanConfig, PretrainConfig
from components.training.engine.trainer import World
from components.training.plan import plan_fixed
from components.training.run.worker import train_worker
from components.training.run.worker_input import Work

PACKAGES = ("aiohttp", "dvc", "moto", "networkx", "prefect", "pydantic", "rich", "sqlalchemy")
VOCABULARY_SIZE = 1024
SEQUENCE_LENGTH = 1024
SIZE = {"layers": 2, "width": 128}
FILE_BYTES = range(300, 24_000)
DOCUMENTS = RepositoryConfig(documents=200)


def corpus() -> pl.DataFrame:
    """The files of the packages in the columns of clean documents, sorted by id."""
    root, rows = Path(sysconfig.get_path("purelib")), {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            if len(content) in FILE_BYTES:
                identity = hashlib.sha256(content).hexdigest()
                rows[identity] = (package, path.relative_to(root).as_posix(), content.decode("utf-8", "ignore"))
    frame = pl.DataFrame(
        [(identity, *row) for identity, row in sorted(rows.items())],
        schema=["id", "package", "path", "text"],
        orient="row",
    )
    config = DuplicateConfig()
    matrix = signatures(
        frame["text"].to_list(),
        shingle_tokens=config.shingle_tokens,
        num_permutations=config.num_permutations,
        seed=config.seed,
    )
    hashes, holders = band_hashes(matrix, config.rows_per_band)
    again = np.unique(holders[1:][hashes[1:] == hashes[:-1]])
    frame = frame[np.setdiff1d(np.arange(len(frame)), again)]
    size = pl.col("text").str.len_bytes().cast(pl.Int64)
    constants = {"language": "python", "licence": "MIT", "source": "environment"}
    return frame.with_columns(
        pl.col("id").alias("cluster"), size.alias("bytes"), **{k: pl.lit(v) for k, v in constants.items()}
    )


def prepare(folder: Path) -> None:
    """clean/, tokenizer/ and tokens-SHARE/ below a folder."""
    frame = corpus()
    with artifact.create(folder / "clean", stage="clean", config=StepConfig(), inputs=[], code=Path(__file__)) as draft:
        frame.write_parquet(draft.path / "part-00000.parquet", row_group_size=500)
    (folder / "tokenizer").mkdir()
    texts = frame.filter(vocabulary.sample(frame, 4_000_000, 0))["text"].to_list()
    vocabulary.write(vocabulary.learn(texts, VOCABULARY_SIZE), folder / "tokenizer")
    for share in (0.0, 0.5):
        out = folder / f"tokens-{share}"
        out.mkdir()
        config = TokenizeConfig(repository_share=share, validation_fraction=0.1)
        output, decided = write_all(config, folder / "clean", folder / "tokenizer", out, Events("tokenize"))
        counts = output.statistics()
        print(share, {name: counts[name] for name in ("train_tokens", "validation_documents", "train_bytes")}, decided)


def train(folder: Path, share: float, steps: int, seed: int) -> None:
    """model-SHARE-SEED/ below a folder, by the defaults of the stage but for the window."""
    sizes = {"sequence_length": SEQUENCE_LENGTH, "batch_samples": 4, "micro_batch_samples": 4}
    run_of = {"steps": steps, "size": SIZE, "precision": "float32", "compiled": True, "validate_every_steps": steps}
    plan = plan_fixed(PlanConfig.model_validate({"mode": "fixed", **sizes, "fixed": run_of}), VOCABULARY_SIZE)
    config = PretrainConfig(seed=seed, final_validation_bytes=30_000, checkpoint_seconds=600)
    run = folder / f"run-{share}-{seed}"
    run.mkdir()
    work = Work(
        config=config,
        plan=plan,
        tokens=folder / f"tokens-{share}",
        tokenizer=folder / "tokenizer",
        run=run,
        training_ends_at=None,
        threads=1,
    )
    started = time.monotonic()
    figures = train_worker(work, World(), report=lambda _: None, agree=lambda value: value)
    (run / "export").rename(folder / f"model-{share}-{seed}")
    shown = {name: figures[name] for name in ("tokens", "steps", "validation_bits_per_byte")}
    print(json.dumps({"share": share, "seed": seed, "seconds": round(time.monotonic() - started), **shown}))


def measure(folder: Path) -> None:
    """A line of figures for each model, with intervals over documents."""
    documents = related_documents(folder / "tokens-0.0", folder / "clean", DOCUMENTS, seed=0)
    arms: dict[str, Sequence[RelatedDocument]] = {
        "path": [replace(each, files=()) for each in documents],
        "related": documents,
        "unrelated": [
            replace(each, files=_of_another_package(documents, place)) for place, each in enumerate(documents)
        ],
    }
    for model in sorted(folder.glob("model-*")):
        engine, codec = open_engine(model), TextCodec(model)
        bits = {name: context_bits(engine, codec, arm) for name, arm in arms.items()}
        weights = bits["path"].num_bytes
        values = {"alone": bits["path"].without_context} | {name: each.with_context for name, each in bits.items()}
        values |= {f"{name} - alone": values[name] - values["alone"] for name in arms}
        values["related - unrelated"] = values["related"] - values["unrelated"]
        for name, each in values.items():
            found = bootstrap(each, weights, confidence=0.95, resamples=2000, seed=0)
            print(f"{model.name:16} {name:20} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] n {found.n}")
        engine.close()


def _of_another_package(documents: Sequence[RelatedDocument], place: int) -> tuple[RelatedFile, ...]:
    """The files shown before the next document of another package."""
    own = documents[place].path.split("/")[0]
    others = [each for each in (*documents[place:], *documents[:place]) if each.path.split("/")[0] != own]
    return others[0].files


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("prepare", "train", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.part == "prepare":
        prepare(options.folder)
    elif options.part == "train":
        train(options.folder, options.share, options.steps, options.seed)
    else:
        measure(options.folder)
