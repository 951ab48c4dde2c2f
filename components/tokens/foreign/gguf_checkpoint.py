"""A GGUF file as a Hugging Face directory: weights without their quantisation, configuration, tokenizer, chat template.

Reads   a file in llama.cpp's form, as `transformers` takes it apart with the `gguf` library
Writes  config.json, model.safetensors in float32 (what was stored in 4 or 8 bits is a product of two numbers, which
        fewer bits would round a second time), tokenizer.json, tokenizer_config.json, source.json
Covers: the architectures that transformers maps back, every quantisation that the library can undo, byte-level
vocabularies whose splits we know and SentencePiece's.
Not covered, and refused with the cause: other architectures and splits, damaged files, encoders.
Imports torch and transformers (12 s).
"""

import contextlib
import io
import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer, read_gguf_metadata
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.utils import logging

from components.core.artifact import write_file
from components.core.errors import DataError, one_line
from components.data.documents.licences import PERMISSIVE, judge
from components.tokens.foreign.config_numbers import check_numbers
from components.tokens.foreign.initial import SOURCE, Source

MAGIC = b"GGUF"
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
# How byte-level vocabularies split a text, by the names that llama.cpp gives (src/llama-vocab.cpp), where transformers
# knows no split of that name and would take GPT-2's: with the digits apart first, and as GPT-2 itself.
DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
AS_GPT2 = frozenset({"gpt-2", "phi-2", "mpt", "olmo", "jais", "mellum", "gigachat", "exaone4"})


def export(
    file: Path, out: Path, *, sha256: str, licence: str | None, package: str | None, version: str | None
) -> Source:
    """Write the directory; `licence` is the package's, which counts where the file states none. Raises DataError."""
    described = _metadata(file)
    quantization, num_tensors = _stored(file)
    stated = described.get("general.license")
    with _quiet():
        _write_model(file, out, str(described["general.architecture"]), num_tensors)
        _write_tokenizer(file, out)
    source = Source(
        file=file.name,
        sha256=sha256,
        bytes=file.stat().st_size,
        name=one_line(described["general.name"]) if described.get("general.name") else None,
        licence=_spdx(str(stated) if stated else licence),
        package=package,
        version=version,
        quantization=quantization,
    )
    write_file(out / SOURCE, (source.model_dump_json(indent=1) + "\n").encode())
    return source


def _spdx(stated: str | None) -> str | None:
    return judge(stated, PERMISSIVE).licence or (one_line(stated) if stated else None)


def _metadata(file: Path) -> dict[str, Any]:
    """What the file says of itself, arrays of texts as their lengths. Raises DataError for a damaged file."""
    with file.open("rb") as opened:
        begins = opened.read(len(MAGIC))
    if begins != MAGIC:
        raise DataError(f"{file}: begins with {begins!r}, needed {MAGIC!r}: this is no GGUF file")
    try:
        described, _ = read_gguf_metadata(str(file))
    except (ValueError, struct.error, OverflowError, MemoryError) as error:
        raise _damaged(file, error) from error
    return dict(described)


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file}: cannot be read as GGUF: {one_line(error)}; it has {file.stat().st_size} bytes and is damaged or cut "
        "off: copy it again, whole"
    )


def _stored(file: Path) -> tuple[str, int]:
    """The form that most weights are stored in, and the number of tensors. Raises DataError for a form that cannot be
    undone, and when a tensor lies beyond the file's end."""
    try:
        stored = GGUFReader(file).tensors
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        if GGMLQuantizationType.__name__ in str(error):
            raise DataError(f"{file}: a quantisation is unknown: {one_line(error)}; {_READABLE}") from error
        raise _damaged(file, error) from error
    counted: Counter[GGMLQuantizationType] = Counter()
    for each in stored:
        counted[each.tensor_type] += each.n_elements
    for kind in counted:
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError as error:
            name = next(each.name for each in stored if each.tensor_type == kind)
            raise DataError(f"{file}: {name} is stored as {kind.name}, which cannot be read; {_READABLE}") from error
    if not counted:
        raise DataError(f"{file}: has no tensors; needed a whole model, not a vocabulary alone")
    return counted.most_common(1)[0][0].name, len(stored)


_READABLE = "needed a file in another quantisation of the same model, as Q8_0, Q4_K or F16"


def _write_model(file: Path, out: Path, architecture: str, num_tensors: int) -> None:
    where = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        config: Any = AutoConfig.from_pretrained(file.parent, **where)
        check_numbers(config.to_dict(), num_tensors, file)
        model, report = AutoModelForCausalLM.from_pretrained(
            file.parent, config=config, dtype=torch.float32, output_loading_info=True, **where
        )
    except DataError:
        raise
    except Exception as error:  # a file of any content reaches any line of the library
        raise DataError(
            f"{file}: transformers cannot make a decoder of its architecture {architecture!r}: {one_line(error, 300)}; "
            "needed one that it reads from GGUF, as llama, qwen2 or qwen3"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise DataError(f"{file}: {len(missing)} weights of the model are not there, as {missing[0]}; copy it again")
    # Without these it would be saved as what it was stored as, or not at all.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(out, max_shard_size="5GB")


def _write_tokenizer(file: Path, out: Path) -> None:
    """Raises DataError for a split that would give other ids than the model was trained with."""
    try:
        architecture, described, stated = get_gguf_tokenizer(str(file))
        tokenizer: Tokenizer = convert_gguf_tokenizer(architecture, described)[0]
    except Exception as error:  # see above
        raise DataError(
            f"{file}: its tokenizer cannot be rebuilt: {one_line(error)}; needed the checkpoint's own "
            "Hugging Face directory"
        ) from error
    split = described.get("pre_tokenizer_type")
    if described.get("tokenizer_type") == "gpt2" and split is not None and split not in GGUF_PRE_TOKENIZER_SPLITS:
        parts: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        if split in DIGITS_APART:
            parts.insert(0, pre_tokenizers.Digits(individual_digits=True))
        elif split not in AS_GPT2:
            raise DataError(
                f"{file}: its tokenizer splits texts as {split!r}, which is not known here, so that its ids would be "
                "other ones; needed the checkpoint's own Hugging Face directory"
            )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    write_file(out / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    config = {role: stated[role] for role in ROLES if stated.get(role) is not None}
    if template := stated.get("chat_template"):
        config["chat_template"] = template
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_file(out / "tokenizer_config.json", (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers says of keys that it does not need, and without its progress."""
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
