"""A checkpoint that is not ours: a small Llama or GPT-2, trained a little, with a tokenizer of other ids than ours."""

import json
import os
from pathlib import Path

import polars as pl
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from components.core import artifact
from components.core.config import StepConfig

CONTEXT = 64
KNOWN_TOKENS = 402
ROWS = 404  # two rows more than ids, as large models pad theirs
TEXT = (Path(os.__file__).parent / "json" / "decoder.py").read_text(encoding="utf-8")


def texts() -> list[str]:
    """Documents of one language: pieces of a module, each with its own lines in its own order."""
    lines = TEXT.splitlines(keepends=True)
    return ["".join(lines[start : start + 24]) for start in range(0, len(lines) - 24, 6)]


def write_tokenizer(out: Path) -> Tokenizer:
    """Bytes and merges first, `<s>` and `</s>` last: no id is ours, and only the end of a text has a name."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=KNOWN_TOKENS - 2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    assert tokenizer.get_vocab_size() == KNOWN_TOKENS
    tokenizer.save(str(out / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (out / "tokenizer_config.json").write_text(json.dumps(named))
    return tokenizer


def build(kind: str) -> LlamaForCausalLM | GPT2LMHeadModel:
    """Random weights."""
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=ROWS, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=2, bos_token_id=400)
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=ROWS,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=CONTEXT,
            bos_token_id=400,
            eos_token_id=401,
        )
    )


def write_checkpoint(out: Path, kind: str = "llama", steps: int = 60) -> Path:
    """A Hugging Face directory in bfloat16, as most are."""
    out.mkdir(parents=True)
    tokenizer = write_tokenizer(out)
    ids = torch.tensor([each for text in texts() for each in [*tokenizer.encode(text).ids, 401]])
    model = build(kind).eval()  # no dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(0, len(ids) - CONTEXT, (8,), generator=generator).tolist()
        rows = torch.stack([ids[start : start + CONTEXT] for start in starts])
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(out)
    return out


def write_clean(out: Path) -> Path:
    """A data/clean artifact of the documents."""
    found = texts()
    rows = pl.DataFrame(
        {
            "id": [f"{number:064x}" for number in range(len(found))],
            "text": found,
            "path": [f"{number}.py" for number in range(len(found))],
            "package": "python",
            "licence": "PSF-2.0",
            "language": "python",
            "source": "python-environment",
            "bytes": [len(text.encode()) for text in found],
            "cluster": [f"{number:064x}" for number in range(len(found))],
        }
    )
    with artifact.create(out, stage="clean", config=StepConfig(), inputs=[], code=Path(__file__)) as draft:
        rows.write_parquet(draft.path / "part-00000.parquet")
    return out
