"""Convert a Hugging Face directory to ctranslate2's binary format, with numpy alone.

ctranslate2's own converter imports torch and transformers (8 s on two cores); this writes the same variables straight
from safetensors in the time that the bytes take.
Covers: Llama and Qwen3 with grouped queries, tied or untied embeddings, plain rotary positions with any theta; weights
in float32, float16 and bfloat16, in one file or several.
Not covered, and refused with the cause: scaled rotary positions, biases, sliding windows, quantized weights.
"""

import json
import shutil
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from components.core import artifact
from components.core.artifact import MANIFEST, sha256_of
from components.core.config import digest_of, read_settings
from components.core.errors import ArtifactError, DataError
from components.core.text import read_json_object
from components.tokens.foreign.weights import CAUSAL, weight_files

Variable = NDArray[Any]

# ctranslate2/specs: model_spec.CURRENT_BINARY_VERSION, transformer_spec.TransformerDecoderModelSpec, Activation.SWISH
BINARY_VERSION = 6
SPEC_NAME = "TransformerDecoderSpec"
SPEC_REVISION = 8
SWISH = 2
TYPE_IDS = {np.dtype(name): index for index, name in enumerate(("float32", "int8", "int16", "int32"))}
CONVERSION_VERSION = 2
DIGESTS = "digests.json"
NO_TOKEN = "none"  # no token of a model: which tokens end a sequence is the caller's to say


def converted(model_dir: Path, cache: Path | None = None) -> Path:
    """The ctranslate2 directory of a model, converted on first use into <state>/engines, keyed by the model's digest.

    One whose files are no longer those that were written is made anew. Raises ArtifactError for an absent or altered
    model and for an architecture that is not covered.
    """
    parent = cache or read_settings().state / "engines"
    out = parent / f"ctranslate2-{CONVERSION_VERSION}-{model_digest(model_dir)}"
    if _is_whole(out):
        return out
    if (model_dir / MANIFEST).exists():
        artifact.read(model_dir)  # under this key stays what is converted now, so it has to be the model of the key
    parent.mkdir(parents=True, exist_ok=True)
    temporary = parent / f".{out.name}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir()
    try:
        convert(model_dir, temporary)
        digests = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        (temporary / DIGESTS).write_text(json.dumps(digests))
        if not _is_whole(out):  # else another process has just finished the same conversion
            shutil.rmtree(out, ignore_errors=True)
            temporary.rename(out)
    except OSError:
        if not _is_whole(out):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _is_whole(out: Path) -> bool:
    """Whether a conversion has the files that were written, and no others."""
    try:
        wanted = json.loads((out / DIGESTS).read_bytes())
        digests = {path.name: sha256_of(path) for path in out.iterdir() if path.name != DIGESTS}
    except (OSError, ValueError):
        return False
    return bool(digests == wanted)


def model_digest(model_dir: Path) -> str:
    """The digest of the model's manifest; of its configuration and weights when it is not one of our artifacts."""
    if (model_dir / MANIFEST).exists():
        return artifact.read(model_dir, verify=False).digest
    return digest_of([sha256_of(path) for path in (model_dir / "config.json", *_weight_files(model_dir))])


def convert(model_dir: Path, out: Path) -> None:
    """Write model.bin, config.json and vocabulary.json of a Hugging Face directory into an existing directory."""
    config = read_model_config(model_dir)
    with (out / "model.bin").open("wb") as target:
        write_model(target, config, read_weights(model_dir), model_dir)
    names = {"bos_token": NO_TOKEN, "eos_token": NO_TOKEN, "unk_token": NO_TOKEN}
    settings = {**names, "layer_norm_epsilon": config["rms_norm_eps"], "multi_query_attention": True}
    (out / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    (out / "vocabulary.json").write_text(json.dumps([str(index) for index in range(config["vocab_size"])]))


def write_model(
    target: IO[bytes], config: dict[str, Any], weights: dict[str, NDArray[np.float32]], model_dir: Path
) -> None:
    """model.bin of weights under transformers' names. Raises ArtifactError where they are not those of the config."""
    try:
        variables = dict(_variables(config, weights, model_dir))
    except KeyError as error:
        raise ArtifactError(
            f"{model_dir}: {error} is neither in config.json nor a weight; needed a model that save_pretrained wrote, "
            "whole"
        ) from error
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"} if is_tied(config, weights) else {}
    _write_variables(target, variables, aliases)


def read_model_config(model_dir: Path) -> dict[str, Any]:
    """config.json of a decoder's Hugging Face directory. Raises ArtifactError when it is absent, not JSON, or another
    kind of model's: encoders and encoder-decoders are trained, tuned and exported here, and not served."""
    path = model_dir / "config.json"
    try:
        config = read_json_object(path)
    except ValueError as error:
        raise ArtifactError(
            f"{path}: cannot be read: {error}; a model is a directory with config.json and model.safetensors"
        ) from error
    architecture = str((config.get("architectures") or ["LlamaForCausalLM"])[0])
    if config.get("is_encoder_decoder") or not architecture.endswith(CAUSAL):
        raise ArtifactError(
            f"{path}: {architecture} is no decoder, so no engine serves it and no stage after sft takes it; "
            "run the cycle with --until sft, and load its model with transformers"
        )
    return config


def read_weights(model_dir: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors of a model's safetensors files, as float32. Raises ArtifactError when there are none."""
    weights: dict[str, NDArray[np.float32]] = {}
    for path in _weight_files(model_dir):
        try:
            tensors = cast(Any, deserialize)(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path}: cannot be read as safetensors: {error}; copy the model again") from error
        for name, tensor in tensors:
            weights[name] = _to_float32(tensor, f"{path}: {name}")
    return weights


def _weight_files(model_dir: Path) -> list[Path]:
    try:
        return weight_files(model_dir)
    except DataError as error:
        raise ArtifactError(str(error)) from error


def _to_float32(tensor: dict[str, Any], name: str) -> NDArray[np.float32]:
    """One deserialized tensor; numpy has no bfloat16, whose bits are the upper half of a float32's."""
    data, shape = tensor["data"], tensor["shape"]
    if tensor["dtype"] == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    dtypes = {"F32": "<f4", "F16": "<f2"}
    if tensor["dtype"] not in dtypes:
        raise ArtifactError(f"{name}: found {tensor['dtype']}, needed F32, F16 or BF16; use the transformers engine")
    return np.frombuffer(data, dtypes[tensor["dtype"]]).astype(np.float32).reshape(shape)


def uncovered(config: dict[str, Any]) -> str | None:
    """What of a model this conversion does not cover, in words; None when it covers all."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for setting, allowed, what in (
        (config.get("model_type"), ("llama", "qwen3"), "model_type"),
        (rope.get("rope_type", "default"), ("default",), "rope_type"),
        (config.get("hidden_act"), ("silu",), "hidden_act"),
        (config.get("attention_bias", False), (False,), "attention_bias"),
        (config.get("mlp_bias", False), (False,), "mlp_bias"),
        (config.get("sliding_window") if config.get("use_sliding_window") else None, (None,), "sliding_window"),
        (config.get("quantization_config"), (None,), "quantization_config"),
    ):
        if setting not in allowed:
            wanted = " or ".join(map(str, allowed))
            return f"{what} is {setting}, the ctranslate2 engine needs {wanted}"
    return None


def is_tied(config: dict[str, Any], weights: dict[str, NDArray[np.float32]]) -> bool:
    """Whether the input embedding is the output embedding too: as the configuration says, but for weights that hold two
    different ones, which transformers then keeps apart."""
    output = weights.get("lm_head.weight")
    tied = bool(config.get("tie_word_embeddings", False))
    return tied and (output is None or np.array_equal(output, weights["model.embed_tokens.weight"]))


def rope_theta(config: dict[str, Any]) -> float:
    """The base of the rotary positions, where transformers 5 writes it, else where transformers 4 did."""
    theta = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta"))
    if theta is None:
        raise ArtifactError("config.json: no rope_theta, neither in rope_parameters nor beside it")
    return float(theta)


def _variables(
    config: dict[str, Any], weights: dict[str, NDArray[np.float32]], model_dir: Path
) -> Iterator[tuple[str, Variable]]:
    """Name and value of every variable of ctranslate2's TransformerDecoderSpec."""
    if reason := uncovered(config):
        raise ArtifactError(f"{model_dir / 'config.json'}: {reason}; use the transformers engine")
    num_heads = config["num_attention_heads"]
    flags = ("alibi", "alibi_use_positive_positions", "scale_alibi", "scale_embeddings", "start_from_zero_embedding")
    for name, number in (("pre_norm", 1), ("activation", SWISH), *((flag, 0) for flag in flags)):
        yield f"decoder/{name}", np.array(number, np.int8)
    for name, number in (("num_heads", num_heads), ("alignment_layer", -1), ("alignment_heads", 1)):
        yield f"decoder/{name}", np.array(number, np.int16)
    yield "decoder/embeddings/weight", weights["model.embed_tokens.weight"]
    yield "decoder/layer_norm/gamma", weights["model.norm.weight"]
    if not is_tied(config, weights):
        yield "decoder/projection/weight", weights["lm_head.weight"]
    head_dim = config.get("head_dim") or config["hidden_size"] // num_heads
    _check_shapes(config, weights, head_dim, model_dir)
    for layer in range(config["num_hidden_layers"]):
        source, target = f"model.layers.{layer}.", f"decoder/layer_{layer}/"
        attention = f"{target}self_attention/"
        fused = [weights[f"{source}self_attn.{name}_proj.weight"] for name in "qkv"]
        yield f"{attention}linear_0/weight", np.concatenate(fused)
        for name, theirs in _renamed(config["model_type"]).items():
            yield f"{target}{name}", weights[f"{source}{theirs}.weight"]
        for name, number in (("num_heads_kv", config["num_key_value_heads"]), ("head_dim", head_dim)):
            yield f"{attention}{name}", np.array(number, np.int32)
        yield f"{attention}rotary_dim", np.array(head_dim, np.int32)
        yield f"{attention}rotary_interleave", np.array(0, np.int8)
        yield f"{attention}rotary_base", np.array(rope_theta(config), np.float32)


def _check_shapes(
    config: dict[str, Any], weights: dict[str, NDArray[np.float32]], head_dim: int, model_dir: Path
) -> None:
    """Raise ArtifactError where the configuration says another size than the weights have."""
    first = "model.layers.0.self_attn."
    for name, rows, what in (
        ("model.embed_tokens.weight", config["vocab_size"], "vocab_size"),
        (f"{first}q_proj.weight", config["num_attention_heads"] * head_dim, "num_attention_heads times head_dim"),
        (f"{first}k_proj.weight", config["num_key_value_heads"] * head_dim, "num_key_value_heads times head_dim"),
    ):
        if len(weights[name]) != rows:
            raise ArtifactError(
                f"{model_dir}: {name} has {len(weights[name])} rows, config.json says {rows} ({what}); needed the "
                "config.json of these weights"
            )
    layers = {name.split(".")[2] for name in weights if name.startswith("model.layers.")}
    if len(layers) != config["num_hidden_layers"]:
        raise ArtifactError(
            f"{model_dir}: the weights are of {len(layers)} layers, config.json says {config['num_hidden_layers']}; "
            "needed the config.json of these weights"
        )


def _renamed(model_type: str) -> dict[str, str]:
    """ctranslate2's name -> transformers' name of one layer's weights that are copied as they are."""
    names = {
        "self_attention/layer_norm/gamma": "input_layernorm",
        "self_attention/linear_1/weight": "self_attn.o_proj",
        "ffn/layer_norm/gamma": "post_attention_layernorm",
        "ffn/linear_0/weight": "mlp.gate_proj",
        "ffn/linear_0_noact/weight": "mlp.up_proj",
        "ffn/linear_1/weight": "mlp.down_proj",
    }
    if model_type == "qwen3":
        names |= {f"self_attention/{name}_norm/gamma": f"self_attn.{name}_norm" for name in "qk"}
    return names


def _write_variables(target: IO[bytes], variables: dict[str, Variable], aliases: dict[str, str]) -> None:
    """ctranslate2's binary format (specs/model_spec.py, ModelSpec._serialize)."""

    def write_text(text: str) -> None:
        target.write(struct.pack("<H", len(text) + 1) + text.encode() + b"\0")

    target.write(struct.pack("<I", BINARY_VERSION))
    write_text(SPEC_NAME)
    target.write(struct.pack("<II", SPEC_REVISION, len(variables)))
    for name, value in sorted(variables.items()):
        write_text(name)
        target.write(struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
        target.write(struct.pack("<BI", TYPE_IDS[value.dtype], value.nbytes))
        target.write(np.ascontiguousarray(value).tobytes())
    target.write(struct.pack("<I", len(aliases)))
    for alias, name in sorted(aliases.items()):
        write_text(alias)
        write_text(name)
