"""Principles: what they forbid, what they weigh, and what a mistake in them is."""

from pathlib import Path

import pytest

from components.alignment.rewards.constitution import Constitution, Principle, read_constitution
from components.core.errors import ConfigError


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("    return a + b", ()),
        ("    pass", ("complete",)),
        ("    os.system(command)", ("safe",)),
        ("    password = 'hunter22'\n    return password", ("no secrets",)),
        ("    try:\n        go()\n    except:\n        return None", ("honest",)),
        ("    x = 1\n    x = 1\n    x = 1", ("readable",)),
        ("    for a in b:\n        pass\n    return a", ()),
    ],
)
def test_the_constitution_finds_what_it_forbids(answer: str, broken: tuple[str, ...]) -> None:
    assert read_constitution().violations(answer) == broken


def test_a_broken_principle_costs_its_weight_once() -> None:
    constitution = Constitution(
        principles=(
            Principle(name="a", text="No x.", weight=2.5, forbids=("x", "xx")),
            Principle(name="b", text="No y.", forbids=("y",)),
        )
    )
    assert [constitution.penalty(text) for text in ("xx", "y", "xy", "z")] == [2.5, 1.0, 3.5, 0.0]
    assert "- No x. (weight 2.5)\n- No y. (weight 1)" in constitution.weighted_text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("principles: [{name: a, text: b, forbids: ['(']}]", "no regular expression"),
        ("principles: [{name: a, text: b, weight: 0}]", "principles.0.weight is 0; input should be greater than 0"),
        ("principles: [{name: a, text: b, wieght: 1}]", "did you mean"),
        ("principles: []", "principles"),
    ],
)
def test_a_constitution_with_a_mistake_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_constitution(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)
