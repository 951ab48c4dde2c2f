"""The model card says what a model was continued from."""

from pathlib import Path

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig
from components.release.cards import card
from components.release.gate import GateDecision
from components.tokens.foreign.initial import INITIAL, Initial, Source

SOURCE = Source(
    file="tiny|1.gguf",
    sha256="ab" * 32,
    bytes=9,
    name="Tiny",
    licence="Apache-2.0",
    package="tiny-models",
    version="1.2",
    quantization="Q4_1",
)
FOUND = Initial(
    digest="cd" * 32,
    model_type="llama",
    context=64,
    layers=2,
    width=64,
    heads=2,
    key_value_heads=1,
    feed_forward=128,
    rope_theta=10000.0,
    positions="rotary",
    tied=True,
    total=100,
    active=90,
    rows=404,
    known_tokens=402,
    vocabulary_size=414,
    source=SOURCE,
)


def write(folder: Path, initial: Initial | None) -> Manifest:
    """An artifact as the stage that adopts a tokenizer leaves it."""
    with artifact.create(folder, stage="vocabulary", config=StepConfig(), inputs=[], code=Path(__file__)) as draft:
        (draft.path / "x").write_text("x")
        draft.statistics = {} if initial is None else {INITIAL: initial.model_dump(mode="json")}
    return artifact.read(folder)


def text_of(tmp_path: Path, initial: Initial | None) -> str:
    lineage = [write(tmp_path / "tokenizer", initial)]
    model = write(tmp_path / "model", None)
    return card(1, model, lineage, {}, GateDecision(outcome="promote", reasons=()))


def test_a_checkpoints_licence_and_digest_stand_in_the_card(tmp_path: Path) -> None:
    text = text_of(tmp_path, FOUND)
    head, section = text.split("## Continued from")
    assert "## Data" not in head and "## Data" in section
    for cells in (
        ("licence", "Apache-2.0"),
        ("package", "tiny-models 1.2"),
        ("sha256 of the file", f"`{'ab' * 32}`"),
        ("digest", f"`{'cd' * 32}`"),
        ("file", "tiny\\|1.gguf"),
    ):
        assert f"| {' | '.join(cells)} |" in section


def test_a_teacher_its_licence_and_its_answers_stand_in_the_card(tmp_path: Path) -> None:
    record = {
        "model": "big|one",
        "licence": "Apache-2.0",
        "asked": 9,
        "learned": 4,
        "digest": "ef",
        "dropped": {"cut": 5},
    }
    with artifact.create(
        tmp_path / "instructions", stage="instructions", config=StepConfig(), inputs=[], code=Path(__file__)
    ) as draft:
        (draft.path / "x").write_text("x")
        draft.statistics = {"teacher": record}
    model = write(tmp_path / "model", None)
    lineage = [artifact.read(tmp_path / "instructions")]
    text = card(1, model, lineage, {}, GateDecision(outcome="promote", reasons=()))
    section = text.partition("## Data")[2].partition("## Training")[0]
    cells = ("model | big\\|one", "licence | Apache-2.0", "answers learned | 4", "prompts that it was asked | 9")
    assert all(f"| {each} |" in section for each in (*cells, "digest | `ef`"))
    assert "taught" not in card(1, model, [], {}, GateDecision(outcome="promote", reasons=()))


def test_what_is_not_known_is_said_and_a_new_model_has_no_such_part(tmp_path: Path) -> None:
    unstated = SOURCE.model_copy(update={"licence": None, "package": None})
    text = text_of(tmp_path / "a", FOUND.model_copy(update={"source": unstated}))
    assert "| licence | stated neither by the file nor by its package |" in text
    assert "| licence | not known:" in text_of(tmp_path / "b", FOUND.model_copy(update={"source": None}))
    assert "Continued from" not in text_of(tmp_path / "c", None)
