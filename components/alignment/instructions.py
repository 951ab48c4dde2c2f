"""Gather what fine-tuning learns and what preferences ask: the curriculum, functions of the corpus, people's own files,
answers of a teacher.

Reads   data/clean, the documents of the training split (data/tokens), the files that instructions.files names, and the
        model or the endpoint that instructions.teacher names
Writes  instructions.parquet (components.alignment.examples.instruction), each prompt once, in the order of the sources
Covers: uses that are disjoint (learned, held out by wording and by composition, asked for preferences); references of
the curriculum run in the sandbox; examples of the corpus that their own function does not satisfy are taken away;
repeated prompts and evaluation items leave, and the statistics say how many.
Not covered: the seconds that a teacher takes, of which the plan knows nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from components.alignment.config import CorpusConfig, CurriculumConfig, InstructionsConfig
from components.alignment.curriculum.references import check_references
from components.alignment.curriculum.tasks import tasks
from components.alignment.examples.corpus_pairs import derived
from components.alignment.examples.edits import edits
from components.alignment.examples.files import read_file
from components.alignment.examples.functions import read_functions
from components.alignment.examples.instruction import TABLE, Instruction, Use, to_table
from components.alignment.rewards.verifier import keep_true_examples
from components.alignment.teacher.lessons import TEACHER, Lessons, lessons
from components.core import artifact
from components.core.artifact import Manifest
from components.core.events import Events
from components.core.step import main
from components.data.cleaning.decontaminate import contaminated, read_items

STAGE = "instructions"
CURRICULUM = "curriculum"
PATIENCE = 500  # tasks in a row that are not wanted: of the uses that are, there are no further ones


def curriculum(config: CurriculumConfig, seed: int) -> Iterator[Instruction]:
    """Tasks of the curriculum until each use has as many as it should, or a level has no further ones."""
    limits: dict[Use, int] = {
        "tuning": config.tuning,
        "paraphrase": config.heldout,
        "composition": config.heldout,
        "pairs": config.pairs,
    }
    idle = 0
    for task in tasks(config.levels, seed):
        if not limits[task.use]:
            idle += 1
            if idle == PATIENCE or not any(limits.values()):  # some levels have none of a use
                return
            continue
        idle = 0
        limits[task.use] -= 1
        yield Instruction(
            name=task.name,
            prompt=task.prompt,
            answer=task.answer,
            use=task.use,
            source=CURRICULUM,
            level=task.level,
            composition="/".join(task.composition),
            examples=task.examples,
            known_names=frozenset(),
        )


def corpus(config: CorpusConfig, source: Path, tokens: Path, *, seed: int) -> Iterator[Instruction]:
    """Functions by their uses, what else is made of those that are learned, and edits."""
    learned: list[Instruction] = []
    limits: dict[Use, int] = {"tuning": config.functions, "heldout": config.heldout}
    asked: dict[Use, int] = {"pairs": config.pairs}
    for part in (limits, asked):
        left = {use: number for use, number in part.items() if number}
        for function in read_functions(source, tokens, [*left]) if left else ():
            if _is_short(function, config) and left[function.use]:
                left[function.use] -= 1
                learned += [function] if function.use == "tuning" else []
                yield function
            if not any(left.values()):
                break
    yield from derived(learned, most=config.derived, seed=seed)
    yield from islice((each for each in edits(source, tokens) if _is_short(each, config)), config.edits)


def _is_short(instruction: Instruction, config: CorpusConfig) -> bool:
    return len(instruction.prompt) + len(instruction.answer) <= config.max_characters


def distinct(instructions: Iterable[Instruction], dropped: Counter[str]) -> Iterator[Instruction]:
    """Each conversation up to its answer once, whatever its use."""
    seen: set[tuple[object, ...]] = set()
    for each in instructions:
        key = (*each.history, each.prompt)
        if key in seen:
            dropped["repeated"] += 1
            continue
        seen.add(key)
        yield each


def clean_of_suites(
    instructions: Sequence[Instruction], config: InstructionsConfig, dropped: Counter[str]
) -> list[Instruction]:
    """Those that hold no evaluation item."""
    items = read_items(config.decontaminate)
    texts = [f"{each.prompt}\n{each.answer}" for each in instructions]
    rows = set(contaminated(items, texts, config.decontaminate.min_share)["row"].to_list())
    dropped["contaminated"] += len(rows)
    return [each for number, each in enumerate(instructions) if number not in rows]


def gather(
    config: InstructionsConfig, source: Path, tokens: Path, dropped: Counter[str]
) -> tuple[list[Instruction], Lessons | None]:
    """All instructions, cleaned, and what the teacher was asked for them. Raises DataError for a mistake in a file of
    the user's, OvernightError when the teacher does not answer."""
    every: list[Instruction] = []
    for file in config.files:
        every += read_file(Path(file.path), name=file.name or Path(file.path).stem, licence=file.licence)
    every += corpus(config.corpus, source, tokens, seed=config.seed)
    every += curriculum(config.curriculum, config.seed)
    taught = lessons(config, source, tokens, {each.prompt for each in every})
    every += [] if taught is None else taught.instructions  # last: of equal prompts the first one stays
    return clean_of_suites(list(distinct(every, dropped)), config, dropped), taught


def run(config: InstructionsConfig, *, source: Path, tokens: Path, out: Path) -> Manifest:
    """Gather the instructions; see the module."""
    events = Events(STAGE)
    inputs = [artifact.read(path) for path in (source, tokens)]
    dropped: Counter[str] = Counter()
    instructions, taught = gather(config, source, tokens, dropped)
    check_references([each for each in instructions if each.source == CURRICULUM], memory_bytes=config.memory_bytes)
    runnable = [each for each in instructions if each.examples and each.source != CURRICULUM and each.use == "pairs"]
    true_examples = keep_true_examples(
        runnable, timeout_seconds=config.timeout_seconds, memory_bytes=config.memory_bytes
    )
    checked = {(each.prompt, each.use): each for each in true_examples}
    instructions = [checked.get((each.prompt, each.use), each) for each in instructions]
    counts = Counter(f"{each.source}/{each.use}" for each in instructions)
    events.note(f"{len(instructions)} instructions; left out: {dict(dropped)}")
    events.metrics({name: float(number) for name, number in counts.items()})
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        table = to_table(instructions)
        table.write_parquet(draft.path / TABLE, compression="zstd")
        draft.rows[TABLE] = table.height
        draft.statistics = {
            "number": table.height,
            "by_source_and_use": dict(sorted(counts.items())),
            "by_kind": dict(sorted(Counter(each.kind for each in instructions).items())),
            "by_level": dict(sorted(Counter(each.level for each in instructions if each.level).items())),
            "with_examples": sum(bool(each.examples) for each in instructions),
            "dropped": dict(sorted(dropped.items())),
            "weights": config.weights,
            "licences": sorted({each.licence for each in instructions if each.licence}),
        }
        if taught is not None:
            draft.statistics[TEACHER] = {**taught.record, "learned": counts[f"{TEACHER}/tuning"]}
            draft.run = {TEACHER: taught.usage}
            events.note(f"teacher: {draft.statistics[TEACHER]}")
    assert draft.manifest is not None
    return draft.manifest


if __name__ == "__main__":
    main(STAGE, InstructionsConfig, run)
