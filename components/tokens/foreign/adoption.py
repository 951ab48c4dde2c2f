"""A checkpoint to go on from (`pretrain.init_from`): what it is, its tokenizer, and the special tokens that it lacks.

Covers: Hugging Face directories of causal models with tokenizer.json and weights in safetensors, one file or several,
in float32, bfloat16 or float16. The weights are those that an index or model.safetensors names; what the model is, its
own class says, built without numbers (components.tokens.foreign.skeleton). The tokenizer is judged and tried first, and
what it carries of a run that it was saved in is switched off (components.tokens.foreign.pipeline).
Not covered, and refused with the cause: pickles (never read), quantized weights, models that bring code of their own,
encoders and encoder-decoders, tokenizers without tokenizer.json or that lose text.
"""

import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from components.core.artifact import sha256_of, write_file
from components.core.config import digest_of
from components.core.errors import DataError
from components.core.text import read_json_object, read_text
from components.tokens.encoding.chat_form import ROLES as CHAT_ROLES
from components.tokens.encoding.chat_form import ChatForm
from components.tokens.encoding.codec import TOKENIZER
from components.tokens.encoding.special import (
    CHAT_FORM,
    CHAT_TEMPLATE,
    END_OF_TEXT,
    ENDS,
    NAMES,
    SPAN_NAMES,
    SpecialTokens,
)
from components.tokens.foreign import chat_template, pipeline, pipeline_probe
from components.tokens.foreign.config_numbers import check_numbers
from components.tokens.foreign.initial import SOURCE, Initial, Source
from components.tokens.foreign.location import checkpoint_directory
from components.tokens.foreign.weights import CAUSAL, INDEX, Tensor, left_out, tensors, weight_files, why_adapter

CONFIG, TOKENIZER_CONFIG, TEMPLATE = "config.json", "tokenizer_config.json", "chat_template.jinja"
DTYPES = ("F32", "BF16", "F16")
# One setting goes by several names in a configuration.
CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
FEED_FORWARD = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
INPUT_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
BUFFERS = (".inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
# What of tokenizer_config.json says which token is which; the rest is how a run of somebody else's cut and filled up.
# The special tokens of our chat form, which nothing uses where the checkpoint keeps its own.
CHAT_FIELDS = (*CHAT_ROLES, "end")
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_initial(directory: Path) -> Initial:
    """What a checkpoint is, vocabulary_size being that of its own tokenizer. Raises DataError with one line.

    Imports torch and transformers (10 s).
    """
    config = _read_config(directory)
    held = _held(directory)
    _, largest_id = pipeline_probe.check(directory / TOKENIZER)
    rows = _rows(config, held, largest_id + 1, directory)
    check_numbers(config, len(held), directory / CONFIG)
    from components.tokens.foreign.skeleton import parameters_of, skeleton  # noqa: PLC0415 - see above

    model, tied = skeleton(directory, held)
    total, active = parameters_of(model)
    built = model.config.get_text_config(decoder=True)
    return Initial(
        digest=digest_of_checkpoint(directory),
        model_type=str(model.config.model_type),
        context=_size(built, CONTEXT, directory),
        layers=int(built.num_hidden_layers),
        width=int(built.hidden_size),
        heads=int(built.num_attention_heads),
        key_value_heads=int(getattr(built, "num_key_value_heads", None) or built.num_attention_heads),
        feed_forward=_size(built, FEED_FORWARD, directory, 4 * int(built.hidden_size)),
        **_positions(built),
        tied=tied,
        total=total,
        active=active,
        rows=rows,
        known_tokens=largest_id + 1,
        vocabulary_size=largest_id + 1,
        source=Source.model_validate(_read_json(path)) if (path := directory / SOURCE).exists() else None,
    )


def foreseen(init_from: str, span_tokens: int) -> Initial:
    """What `vocabulary` will say of a checkpoint, with the rows that its new tokens need; writes nothing but the
    directory of a GGUF file. Raises as `read_initial` and `adopt`."""
    directory = checkpoint_directory(init_from)
    initial = read_initial(directory)
    with tempfile.TemporaryDirectory(prefix="overnight-tokenizer-") as folder:
        _, size, _ = adopt(directory, Path(folder), span_tokens)
    return initial.model_copy(update={"vocabulary_size": size})


def write_initial_path(init_from: str | None, out: Path) -> None:
    """Say in a file which checkpoint a cycle goes on from, so that DVC runs `vocabulary` anew when it is another one or
    a file of it has changed: by path, size and time, as of the sources; vocabulary then looks at the content.

    Raises DataError for what is no checkpoint to go on from: refused now, not when documents have been cleaned.
    """
    content: dict[str, Any] = {}
    if init_from is not None:
        directory = checkpoint_directory(init_from)
        config = _read_config(directory)
        check_numbers(config, len(_held(directory)), directory / CONFIG)
        pipeline_probe.check(directory / TOKENIZER)
        files = sorted(path for path in directory.glob("*") if path.is_file())
        states = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        content = {"path": str(directory.resolve()), "fingerprint": digest_of(states)}
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
    files = [directory / name for name in (CONFIG, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE, INDEX)]
    return digest_of([[each.name, sha256_of(each)] for each in [*files, *weight_files(directory)] if each.exists()])


def adopt(directory: Path, out: Path, span_tokens: int) -> tuple[SpecialTokens, int, list[str]]:
    """Write a checkpoint's tokenizer, without what `pipeline` switches off, with the special tokens that it lacks
    behind its own ids, and its own chat form where it has one that can be taken apart, else ours.

    Returns the special tokens, the number of ids, and what a person should know, a note each. Raises DataError for a
    tokenizer that is refused, and when no token of it ends a text.
    """
    original = pipeline.read(directory / TOKENIZER)
    content, switched_off = pipeline.cleaned(original, directory / TOKENIZER)
    path = directory / TOKENIZER_CONFIG
    theirs = _read_json(path) if path.exists() else {}
    known = {str(each["content"]) for each in content["added_tokens"]}
    end = _name_of_end(known, theirs, directory)
    template = _template(directory, theirs)
    roles = {role: text for role in ROLES if (text := _text_of(theirs.get(role))) in known}
    form = chat_template.take_apart(directory / TOKENIZER, template, roles) if template else None
    # A text may say what a special token says: such a token is one only by its id, never by its text.
    ours = {end, *(name for names in NAMES.values() for name in names), *_span_names(known)}
    content["added_tokens"] = [
        each | {"special": each["special"] or each["content"] in ours} for each in content["added_tokens"]
    ]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    lacked = [names for field, names in NAMES.items() if not (isinstance(form, ChatForm) and field in CHAT_FIELDS)]
    size = _add_special_tokens(tokenizer, known, lacked, span_tokens, directory)
    write_file(out / TOKENIZER, tokenizer.to_str(pretty=True).encode())
    config: dict[str, Any] = {**roles, "eos_token": end, "tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {"clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE}
    if isinstance(form, ChatForm):
        config |= {"chat_template": template, CHAT_FORM: form.record()}
    write_file(out / TOKENIZER_CONFIG, (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode())
    notes = [f"switched off in its tokenizer: {', '.join(switched_off)}"] if switched_off else []
    if lacking := pipeline.lacking_bytes(original["model"]):
        notes.append(f"its tokenizer drops {len(lacking)} of the 256 bytes, as {lacking[0]!r}: tokens of them are new")
    if isinstance(form, ChatForm):
        notes.append(f"its own chat template is kept: answers end with {tokenizer.id_to_token(form.end)}")
    elif form is not None:
        notes.append(f"its chat template cannot be taken apart ({form}): chats are written in our form")
    if others := left_out(directory):
        notes.append(
            f"left, as neither an index nor the name model.safetensors says that they belong: {', '.join(others)}"
        )
    return SpecialTokens.read(out), size, notes


def _template(directory: Path, config: dict[str, Any]) -> str | None:
    """The chat template of a tokenizer, as libraries have written it over the years; None where it is ours or absent.

    Raises DataError for a file that is not text.
    """
    template: Any = config.get("chat_template")
    if isinstance(template, list):  # several by name
        named = [each for each in template if isinstance(each, dict)]
        template = next((each.get("template") for each in named if each.get("name") == "default"), None)
    if (path := directory / TEMPLATE).exists():
        try:
            template = read_text(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}; copy the checkpoint again") from error
    return template if isinstance(template, str) and template not in ("", CHAT_TEMPLATE) else None


def _add_special_tokens(
    tokenizer: Tokenizer, known: set[str], lacked: Sequence[tuple[str, ...]], span_tokens: int, directory: Path
) -> int:
    """Add the special tokens that are not known behind all ids; returns the number of ids.

    lacked  names of each token that is wanted, ours first
    """
    first = _largest_id(tokenizer) + 1
    wanted = [names[0] for names in lacked if not known & set(names)]
    wanted = [each for each in wanted if each != END_OF_TEXT]
    if not any(all(form.format(number) in known for number in range(span_tokens)) for form in SPAN_NAMES):
        wanted += [SPAN_NAMES[0].format(number) for number in range(span_tokens)]
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in wanted])
    ids = [tokenizer.token_to_id(each) for each in wanted]
    if ids != list(range(first, first + len(wanted))):
        raise DataError(f"{directory / TOKENIZER}: its ids have holes, so that new tokens got {ids[:3]}; renumber it")
    _require_data(tokenizer, directory)
    return first + len(wanted)


def _name_of_end(known: set[str], config: dict[str, Any], directory: Path) -> str:
    named = next((text for key in ENDS if (text := _text_of(config.get(key)))), None)
    end = END_OF_TEXT if END_OF_TEXT in known else named
    if end not in known:
        raise DataError(
            f"{directory}: no token ends a text: found eos_token {named!r}, needed one among the added_tokens of "
            f"{TOKENIZER}; name it in {TOKENIZER_CONFIG}"
        )
    return str(end)


def _require_data(tokenizer: Tokenizer, directory: Path) -> None:
    """Raise DataError when a text that says a special token becomes that token, as in a model that has it as a word."""
    tokenizer.encode_special_tokens = True
    for number, added in tokenizer.get_added_tokens_decoder().items():
        text = f"a {added.content} b{added.content}"
        if added.special and number in tokenizer.encode(text, add_special_tokens=False).ids:
            raise DataError(
                f"{directory / TOKENIZER}: a text that says {added.content} becomes that special token; needed a "
                "tokenizer that keeps the two apart: continue another checkpoint"
            )


def _text_of(token: Any) -> str | None:
    """tokenizer_config.json names a token by its text or by a mapping with it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _span_names(known: set[str]) -> Iterator[str]:
    """Names of the tokens that name spans, as SpecialTokens.read counts them."""
    for form in SPAN_NAMES:
        number = 0
        while (name := form.format(number)) in known:
            yield name
            number += 1


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except ValueError as error:
        raise DataError(
            f"{path}: cannot be read as JSON: {error}; pretrain.init_from needs a directory of Hugging Face's form"
        ) from error


def _read_config(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise DataError(
            f"pretrain.init_from: {directory} is not a directory; needed a checkpoint of Hugging Face's form"
        )
    if adapter := why_adapter(directory):
        raise DataError(f"pretrain.init_from: {adapter}")
    config = _read_json(directory / CONFIG)
    model_type = str(config.get("model_type"))
    if config.get("auto_map"):
        raise DataError(f"{directory / CONFIG}: its model needs code of its own (auto_map), which is never run")
    if config.get("quantization_config"):
        raise DataError(f"{directory / CONFIG}: the weights are quantized; needed the original ones")
    if not _knows(model_type):
        raise DataError(f"{directory / CONFIG}: transformers has no model_type {model_type}; needed one that it has")
    if named := config.get("transformers_weights"):
        raise DataError(f"{directory / CONFIG}: names {named!r} as its weights; needed model.safetensors or an index")
    architectures = [str(each) for each in config.get("architectures") or ()]
    if config.get("is_encoder_decoder") or not any(each.endswith(CAUSAL) for each in architectures):
        raise DataError(
            f"{directory / CONFIG}: found {', '.join(architectures) or model_type}, needed a decoder "
            f"(architectures that end with {' or '.join(CAUSAL)})"
        )
    return config


def _knows(model_type: str) -> bool:
    """Whether transformers has a folder for it; looked up without importing it, which takes seconds."""
    package = find_spec("transformers")
    assert package is not None and package.submodule_search_locations, "transformers is installed"
    name = model_type.replace("-", "_")
    return name.isidentifier() and (Path(package.submodule_search_locations[0]) / "models" / name).is_dir()


def _largest_id(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab(with_added_tokens=True).values())


def _held(directory: Path) -> dict[str, Tensor]:
    """The tensors of the weights by name, without buffers. Raises DataError for types that are not trained in."""
    held = {name: each for name, each in tensors(directory).items() if not name.endswith(BUFFERS)}
    for name, each in held.items():
        if each.dtype not in DTYPES:
            raise DataError(f"{each.file}: {name} is {each.dtype}, needed {', '.join(DTYPES)}")
    return held


def _rows(config: dict[str, Any], held: dict[str, Tensor], known: int, directory: Path) -> int:
    """Rows of the input embedding, which are as many as vocab_size and enough for the tokenizer's ids."""
    name = next((each for each in held if each.endswith(INPUT_EMBEDDINGS) and len(held[each].shape) == 2), None)
    if name is None:
        raise DataError(f"{directory}: no tensor is an input embedding; needed one of {', '.join(INPUT_EMBEDDINGS)}")
    rows = held[name].shape[0]
    stated = config.get("vocab_size", rows)
    if stated != rows or known > rows:
        raise DataError(
            f"{directory}: {CONFIG} says vocab_size {stated}, {name} has {rows} rows and the tokenizer ids up to "
            f"{known - 1}; needed as many rows as vocab_size, and one for each id: these are not one checkpoint's files"
        )
    return rows


def _size(config: Any, names: Collection[str], directory: Path, default: int | None = None) -> int:
    for name in names:
        if isinstance(value := getattr(config, name, None), int):
            return value
    if default is not None:
        return default
    raise DataError(f"{directory / CONFIG}: none of {', '.join(names)} is there; needed one")


def _positions(config: Any) -> dict[str, Any]:
    """rope_theta and positions of an Initial."""
    rope = getattr(config, "rope_parameters", None) or {}
    if not rope:
        return {"rope_theta": 0.0, "positions": "learned"}
    layers = [each for each in rope.values() if isinstance(each, dict)]  # of each kind of layer its own
    scaled = bool(layers) or rope.get("rope_type", "default") != "default"
    theta = (layers[0] if layers else rope).get("rope_theta", 0.0)
    return {"rope_theta": float(theta), "positions": "scaled rotary" if scaled else "rotary"}
