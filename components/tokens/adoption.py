"""A checkpoint to go on from (`pretrain.init_from`): what it is, told from its files without torch, and its tokenizer
with the special tokens that it lacks.

Covers: Hugging Face directories of causal models with tokenizer.json and weights in safetensors, one file or several,
in float32, bfloat16 or float16.
Not covered, and refused with the cause: pickles (never read), quantized weights, models that bring code of their own,
encoders and encoder-decoders, tokenizers without tokenizer.json.
"""

import json
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from components.core.artifact import sha256_of, write_file
from components.core.config import digest_of
from components.core.errors import DataError
from components.tokens.initial import Initial
from components.tokens.special import CHAT_TEMPLATE, END_OF_TEXT, NAMES, SPAN_NAMES, SpecialTokens
from components.tokens.text import TOKENIZER

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
CAUSAL = ("ForCausalLM", "LMHeadModel")
DTYPES = ("F32", "BF16", "F16")
# One setting goes by several names in config.json.
KEYS = {
    "context": ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
}
INPUT_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight")
POSITIONS = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight")
BUFFERS = (".inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")


def read_initial(directory: Path) -> Initial:
    """What a checkpoint is, vocabulary_size being that of its own tokenizer. Raises DataError with one line."""
    config = _read_config(directory)
    tensors = _tensors(directory)
    known = _largest_id(_tokenizer(directory)) + 1
    name, (rows, width) = _embedding(tensors, directory)
    stated = int(config.get("vocab_size", rows))
    if stated != rows or known > rows:
        raise DataError(
            f"{directory}: {CONFIG} says vocab_size {stated}, {name} has {rows} rows and the tokenizer ids up to "
            f"{known - 1}; needed as many rows as vocab_size, and one for each id: these are not one checkpoint's files"
        )
    sizes = {each: _first(config, names, directory) for each, names in KEYS.items()}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rotary = "rope_theta" in config or "rope_theta" in rope
    scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
    tied = not any(each.endswith(OUTPUT_EMBEDDINGS) for each in tensors)
    total, active = _counts(tensors, config, tied)
    return Initial(
        digest=digest_of_checkpoint(directory),
        model_type=str(config["model_type"]),
        **sizes,
        key_value_heads=int(config.get("num_key_value_heads") or sizes["heads"]),
        feed_forward=int(config.get("intermediate_size") or config.get("n_inner") or 4 * width),
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 0.0))),
        positions=("scaled rotary" if scaled else "rotary") if rotary else "learned",
        tied=tied,
        total=total,
        active=active,
        rows=rows,
        known_tokens=known,
        vocabulary_size=known,
    )


def write_initial_path(directory: str | None, out: Path) -> None:
    """Say in a file which checkpoint a cycle goes on from, so that DVC runs `vocabulary` anew when it is another one or
    a file of it has changed: by path, size and time, as of the sources; vocabulary then looks at the content.

    Raises DataError for a directory that holds no checkpoint to go on from.
    """
    content: dict[str, Any] = {}
    if directory is not None:
        _read_config(Path(directory))  # refused now, not when documents have been cleaned
        _weights(Path(directory))
        files = sorted(path for path in Path(directory).glob("*") if path.is_file())
        states = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        content = {"path": str(Path(directory).resolve()), "fingerprint": digest_of(states)}
    text = (json.dumps(content, indent=1) + "\n").encode()
    if not out.exists() or out.read_bytes() != text:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, text)


def read_initial_path(path: Path) -> Path | None:
    """The checkpoint's directory that such a file names; None when it names none."""
    named = _read_json(path).get("path")
    return Path(named) if named else None


def digest_of_checkpoint(directory: Path) -> str:
    """Of the content of every file that is read: configuration, tokenizer, weights. Raises DataError without them."""
    files = [directory / name for name in (CONFIG, TOKENIZER, TOKENIZER_CONFIG)]
    return digest_of([[each.name, sha256_of(each)] for each in [*files, *_weights(directory)] if each.exists()])


def adopt(directory: Path, out: Path, span_tokens: int) -> tuple[SpecialTokens, int]:
    """Write a checkpoint's tokenizer with the special tokens that it lacks, behind its own ids, and our chat form.

    Returns the special tokens and the number of ids. Raises DataError when no token of it ends a text.
    """
    tokenizer = _tokenizer(directory)
    path = directory / TOKENIZER_CONFIG
    config: dict[str, Any] = _read_json(path) if path.exists() else {}
    first = _largest_id(tokenizer) + 1
    known = {str(each.content) for each in tokenizer.get_added_tokens_decoder().values()}
    wanted = [names[0] for names in NAMES.values() if not known & set(names)]
    wanted = [each for each in wanted if each != END_OF_TEXT]
    if not any(all(form.format(number) in known for number in range(span_tokens)) for form in SPAN_NAMES):
        wanted += [SPAN_NAMES[0].format(number) for number in range(span_tokens)]
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in wanted])
    found = [tokenizer.token_to_id(each) for each in wanted]
    if found != list(range(first, first + len(wanted))):
        raise DataError(f"{directory / TOKENIZER}: its ids have holes, so that new tokens got {found[:3]}; renumber it")
    write_file(out / TOKENIZER, tokenizer.to_str(pretty=True).encode())
    end = _name_of_end(known, config, directory)
    config |= {"eos_token": end, "chat_template": CHAT_TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
    config.pop("auto_map", None)
    write_file(out / TOKENIZER_CONFIG, (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode())
    return SpecialTokens.read(out), first + len(wanted)


def _name_of_end(known: set[str], config: dict[str, Any], directory: Path) -> str:
    named = config.get("eos_token")
    named = named["content"] if isinstance(named, dict) else named
    end = END_OF_TEXT if END_OF_TEXT in known else named
    if end not in known:
        raise DataError(
            f"{directory}: no token ends a text: found eos_token {named!r}, needed one among the added_tokens of "
            f"{TOKENIZER}; name it in {TOKENIZER_CONFIG}"
        )
    return str(end)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON: {error}; pretrain.init_from needs a directory of Hugging Face's form"
        ) from error


def _read_config(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise DataError(
            f"pretrain.init_from: {directory} is not a directory; needed a checkpoint of Hugging Face's form"
        )
    config = _read_json(directory / CONFIG)
    model_type = str(config.get("model_type"))
    if config.get("auto_map"):
        raise DataError(f"{directory / CONFIG}: its model needs code of its own (auto_map), which is never run")
    if config.get("quantization_config"):
        raise DataError(f"{directory / CONFIG}: the weights are quantized; needed the original ones")
    if not _knows(model_type):
        raise DataError(f"{directory / CONFIG}: transformers has no model_type {model_type}; needed one that it has")
    architectures = [str(each) for each in config.get("architectures") or ()]
    if config.get("is_encoder_decoder") or not any(each.endswith(CAUSAL) for each in architectures):
        raise DataError(
            f"{directory / CONFIG}: found {', '.join(architectures) or model_type}, needed a decoder "
            f"(architectures that end with {' or '.join(CAUSAL)})"
        )
    return config


def _knows(model_type: str) -> bool:
    """Whether transformers has a folder for it; looked up without importing it, which takes seconds."""
    found = find_spec("transformers")
    assert found is not None and found.submodule_search_locations, "transformers is installed"
    name = model_type.replace("-", "_")
    return name.isidentifier() and (Path(found.submodule_search_locations[0]) / "models" / name).is_dir()


def _tokenizer(directory: Path) -> Tokenizer:
    path = directory / TOKENIZER
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every cause
        raise DataError(
            f"{path}: cannot be read as a tokenizer: {error}; a checkpoint is continued with its own tokenizer, "
            "save it beside the weights (AutoTokenizer.save_pretrained)"
        ) from error


def _largest_id(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab(with_added_tokens=True).values())


def _weights(directory: Path) -> list[Path]:
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        pickles = [path.name for each in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in sorted(directory.glob(each))]
        held = f"found {pickles[0]}, a pickle, which is never loaded" if pickles else "found no weights"
        raise DataError(f"{directory}: {held}; needed model.safetensors, which save_pretrained writes")
    return files


def _tensors(directory: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name, from the headers of the weights."""
    found: dict[str, tuple[int, ...]] = {}
    for path in _weights(directory):
        with path.open("rb") as file:
            try:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > path.stat().st_size:
                    raise ValueError(f"its header has {length} bytes, the file fewer")
                header = json.loads(file.read(length))
            except (struct.error, ValueError) as error:
                raise DataError(f"{path}: not safetensors: {error}; copy the checkpoint again") from error
        header.pop("__metadata__", None)
        for name, each in header.items():
            if each["dtype"] not in DTYPES and not name.endswith(BUFFERS):
                raise DataError(f"{path}: {name} is {each['dtype']}, needed {', '.join(DTYPES)}")
            found[name] = tuple(each["shape"])
    return {name: shape for name, shape in found.items() if not name.endswith(BUFFERS)}


def _embedding(tensors: dict[str, tuple[int, ...]], directory: Path) -> tuple[str, tuple[int, int]]:
    for name, shape in tensors.items():
        if name.endswith(INPUT_EMBEDDINGS) and len(shape) == 2:
            return name, (shape[0], shape[1])
    raise DataError(f"{directory}: no tensor is an input embedding; needed one of {', '.join(INPUT_EMBEDDINGS)}")


def _first(config: dict[str, Any], names: tuple[str, ...], directory: Path) -> int:
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise DataError(f"{directory / CONFIG}: none of {', '.join(names)} is there; needed one")


def _counts(tensors: dict[str, tuple[int, ...]], config: dict[str, Any], tied: bool) -> tuple[int, int]:
    """All parameters, and those of the matrices that a token is multiplied with."""
    total = active = 0
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 1)
    share = int(config.get("num_experts_per_tok") or 1) / experts if experts > 1 else 1.0
    for name, shape in tensors.items():
        count = 1
        for side in shape:
            count *= side
        total += count
        is_input = name.endswith(INPUT_EMBEDDINGS)
        if len(shape) < 2 or name.endswith(POSITIONS) or (is_input and not tied):
            continue
        active += int(count * share) if ".experts." in name else count
    return total, active
