"""The special tokens: their names, their fixed ids, the forms that are built from them, and those of any tokenizer.

Fill in the middle   <|fim_prefix|>prefix<|fim_suffix|>suffix<|fim_middle|>middle<|endoftext|>
Chat                 <|system|>text<|end|> (optional) <|user|>text<|end|><|assistant|>text<|end|>, or a checkpoint's own
A document           text<|endoftext|>
Files of a package   <|file_sep|>path\\ntext<|file_sep|>path\\ntext<|endoftext|>
Denoising            <|mode_r|>a<|span_0|>c<|span_1|> and <|span_0|>b<|span_1|>d<|endoftext|>
Masked LM            a<|mask|>c
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from components.core.errors import ArtifactError
from components.core.text import read_json_object
from components.tokens.encoding.chat_form import ChatForm

END_OF_TEXT: Final = "<|endoftext|>"
FIM_PREFIX: Final = "<|fim_prefix|>"
FIM_MIDDLE: Final = "<|fim_middle|>"
FIM_SUFFIX: Final = "<|fim_suffix|>"
FIM_PAD: Final = "<|fim_pad|>"
SYSTEM: Final = "<|system|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
END: Final = "<|end|>"
MASK: Final = "<|mask|>"
MODE_R: Final = "<|mode_r|>"
MODE_S: Final = "<|mode_s|>"
MODE_X: Final = "<|mode_x|>"
FILE_SEP: Final = "<|file_sep|>"

SPECIAL_TOKENS: Final = (
    *(END_OF_TEXT, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, FIM_PAD, SYSTEM, USER, ASSISTANT, END),
    *(MASK, MODE_R, MODE_S, MODE_X, FILE_SEP),
    *(f"<|reserved_{number}|>" for number in range(2)),
)
"""Every special token that each of our vocabularies has, at the index that is its id. The tokens that name spans
follow, as many as `vocabulary.span_tokens` says."""

END_OF_TEXT_ID: Final = 0
FIM_PREFIX_ID: Final = 1
FIM_MIDDLE_ID: Final = 2
FIM_SUFFIX_ID: Final = 3
FIM_PAD_ID: Final = 4
SYSTEM_ID: Final = 5
USER_ID: Final = 6
ASSISTANT_ID: Final = 7
END_ID: Final = 8
FILE_SEP_ID: Final = 13

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The chat form for libraries that render it as text (transformers, TRL)."""
CHAT_FORM: Final = "chat_form"
"""The key of tokenizer_config.json that holds a ChatForm which is not ours: an adopted tokenizer's own."""

# What each token is called: by us and Qwen, StarCoder, Code Llama, DeepSeek, T5, BERT. The first that is there counts.
NAMES: Final = {
    "end_of_text": (END_OF_TEXT,),
    "fim_prefix": (FIM_PREFIX, "<fim_prefix>", "▁<PRE>", "<｜fim▁begin｜>"),
    "fim_middle": (FIM_MIDDLE, "<fim_middle>", "▁<MID>", "<｜fim▁end｜>"),
    "fim_suffix": (FIM_SUFFIX, "<fim_suffix>", "▁<SUF>", "<｜fim▁hole｜>"),
    "pad": (FIM_PAD, "<fim_pad>", "<pad>", "[PAD]"),
    "system": (SYSTEM,),
    "user": (USER,),
    "assistant": (ASSISTANT,),
    "end": (END,),
    "mask": (MASK, "[MASK]", "<mask>"),
    "mode_r": (MODE_R,),
    "mode_s": (MODE_S,),
    "mode_x": (MODE_X,),
    "file_sep": (FILE_SEP, "<file_sep>"),
}
SPAN_NAMES: Final = ("<|span_{}|>", "<extra_id_{}>")
CONFIG: Final = "tokenizer_config.json"
# A tokenizer without <|endoftext|> ends a text with what its tokenizer_config.json names, in this order.
ENDS: Final = ("eos_token", "sep_token")


def special_tokens(span_tokens: int) -> tuple[str, ...]:
    """Every special token of a vocabulary that names so many spans of denoised texts, at the index that is its id."""
    return (*SPECIAL_TOKENS, *(SPAN_NAMES[0].format(number) for number in range(span_tokens)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids of the special tokens of one tokenizer, None for those that it lacks.

    spans   ids of the tokens that name the spans of a denoised text, first span first; empty when it has none
    chat    how a chat is written, None for a tokenizer without; `end` is then what ends an answer, whatever its name
    """

    end_of_text: int
    fim_prefix: int | None = None
    fim_middle: int | None = None
    fim_suffix: int | None = None
    pad: int | None = None
    system: int | None = None
    user: int | None = None
    assistant: int | None = None
    end: int | None = None
    mask: int | None = None
    mode_r: int | None = None
    mode_s: int | None = None
    mode_x: int | None = None
    file_sep: int | None = None
    spans: tuple[int, ...] = ()
    chat: ChatForm | None = None

    @property
    def ids(self) -> list[int]:
        """All of them."""
        single = [getattr(self, field) for field in NAMES]
        return [token for token in (*single, *self.spans) if token is not None]

    @property
    def filler(self) -> int:
        """What fills up the shorter sequences of a batch: the padding token, else one that ends nothing if there is."""
        ends = {self.end_of_text, self.end}
        return next((each for each in (self.pad, *self.ids) if each is not None and each not in ends), self.end_of_text)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Those of a tokenizer's or model's directory (tokenizer.json, tokenizer_config.json).

        Raises ArtifactError when a file cannot be read, or when the tokenizer has no token that ends a text.
        """
        added = {
            str(each["content"]): int(each["id"])
            for each in _read_json(directory, "tokenizer.json").get("added_tokens", ())
        }
        ids = {field: next((added[name] for name in names if name in added), None) for field, names in NAMES.items()}
        end_of_text = ids.pop("end_of_text")
        config = _read_json(directory, CONFIG) if (directory / CONFIG).exists() or end_of_text is None else {}
        if end_of_text is None:
            named = (_content(config.get(key)) for key in ENDS)
            end_of_text = next((added[name] for name in named if name in added), None)
        if end_of_text is None:
            raise ArtifactError(
                f"{directory}: no token ends a text; needed {END_OF_TEXT}, or an eos_token in tokenizer_config.json "
                "that is among the added_tokens of tokenizer.json"
            )
        chat = _chat(ids, config.get(CHAT_FORM), directory)
        ids["end"] = ids["end"] if chat is None else chat.end
        return cls(end_of_text=end_of_text, spans=_spans(added), chat=chat, **ids)


OURS: Final = SpecialTokens(
    end_of_text=END_OF_TEXT_ID,
    fim_prefix=FIM_PREFIX_ID,
    fim_middle=FIM_MIDDLE_ID,
    fim_suffix=FIM_SUFFIX_ID,
    pad=FIM_PAD_ID,
    system=SYSTEM_ID,
    user=USER_ID,
    assistant=ASSISTANT_ID,
    end=END_ID,
    file_sep=FILE_SEP_ID,
    chat=ChatForm.of_single_tokens(system=SYSTEM_ID, user=USER_ID, assistant=ASSISTANT_ID, end=END_ID),
)
"""Those of every vocabulary that we learn, as far as chat and fill in the middle need them."""


def _chat(ids: dict[str, int | None], stated: Any, directory: Path) -> ChatForm | None:
    """The form that the tokenizer's configuration states; else ours, where it has our tokens; else None."""
    if stated is not None:
        try:
            return ChatForm.read(stated)
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{directory / CONFIG}: {CHAT_FORM} cannot be read ({type(error).__name__}: {error}); the stage "
                "vocabulary writes it"
            ) from error
    system, user, assistant, end = (ids[each] for each in ("system", "user", "assistant", "end"))
    if system is None or user is None or assistant is None or end is None:
        return None
    return ChatForm.of_single_tokens(system=system, user=user, assistant=assistant, end=end)


def _spans(added: dict[str, int]) -> tuple[int, ...]:
    for form in SPAN_NAMES:
        ids: list[int] = []
        while (name := form.format(len(ids))) in added:
            ids.append(added[name])
        if ids:
            return tuple(ids)
    return ()


def _content(token: Any) -> str:
    """tokenizer_config.json names a token by its text or by a mapping with it; "" for neither."""
    return str(token["content"] if isinstance(token, dict) else token or "")


def _read_json(directory: Path, name: str) -> dict[str, Any]:
    path = directory / name
    try:
        return read_json_object(path)
    except ValueError as error:
        raise ArtifactError(f"{path}: cannot be read as JSON: {error}; the stage vocabulary writes it") from error
