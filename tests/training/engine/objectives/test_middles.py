"""A small model that is trained to fill middles fills them, and ends them where the suffix goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.modeling_utils import PreTrainedModel

from components.inference.infilling_prompts import fim_prompt
from components.tokens import vocabulary
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import END_OF_TEXT_ID
from components.training.engine.model.architectures import build
from components.training.engine.trainer import Trainer, World
from components.training.parameters.objectives import Infill, ObjectivesConfig
from components.training.run.objective_mixture import mixture_of
from tests.margins import Margins
from tests.training.runs import SHAPE, recipe

pytestmark = pytest.mark.numeric


@pytest.mark.drill
def test_a_model_learns_to_end_a_middle(tmp_path: Path, margins: Margins) -> None:
    """Where the suffix goes on, in prompts of half the length of the windows that it saw."""
    letters = 3 * "abcdefghijklmnop"
    vocabulary.write(vocabulary.learn([letters], 272), tmp_path)
    codec = TextCodec(tmp_path)
    mix = mixture_of(ObjectivesConfig(infill=Infill(rate=1.0)), "decoder", tmp_path, seed=7)
    trainer = Trainer(
        build(replace(SHAPE, vocabulary_size=272), 0, END_OF_TEXT_ID), recipe(micro=32), World(), lambda _: None
    )
    for step in range(300):
        starts = np.random.default_rng(step).integers(16, size=32)
        windows = np.array([[END_OF_TEXT_ID, *codec.encode(letters[start : start + 24])] for start in starts])
        batch = mix.batch(windows, [step] * 32, range(32), starts)
        trainer.accumulate(step, batch)
        trainer.update(step, min(1.0, 2 - step / 150))
    right = 0
    for start, first, size in np.random.default_rng(0).integers((0, 1, 1), (16, 5, 6), size=(40, 3)).tolist():
        text = letters[start : start + 12]
        prompt = fim_prompt(codec, text[:first], text[first + size :])
        right += middle_of(trainer.model.eval(), prompt) == codec.encode(text[first : first + size])
    margins.effect("middles of 40", right, least=25)


@torch.no_grad()
def middle_of(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    """What a model says most likely up to its end, at most 12 tokens."""
    said: list[int] = []
    while len(said) < 12:
        token = int(model(input_ids=torch.tensor([prompt + said])).logits[0, -1].argmax())
        if token == END_OF_TEXT_ID:
            break
        said.append(token)
    return said
