"""The special tokens: their names, their fixed ids, and the two forms that are built from them.

Fill in the middle   <|fim_prefix|>prefix<|fim_suffix|>suffix<|fim_middle|>middle<|endoftext|>
Chat                 <|system|>text<|end|> (optional) <|user|>text<|end|><|assistant|>text<|end|>
A document           text<|endoftext|>
"""

from typing import Final

END_OF_TEXT: Final = "<|endoftext|>"
FIM_PREFIX: Final = "<|fim_prefix|>"
FIM_MIDDLE: Final = "<|fim_middle|>"
FIM_SUFFIX: Final = "<|fim_suffix|>"
FIM_PAD: Final = "<|fim_pad|>"
SYSTEM: Final = "<|system|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
END: Final = "<|end|>"

SPECIAL_TOKENS: Final = (
    *(END_OF_TEXT, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, FIM_PAD, SYSTEM, USER, ASSISTANT, END),
    *(f"<|reserved_{number}|>" for number in range(7)),
)
"""Every special token, at the index that is its id."""

END_OF_TEXT_ID: Final = 0
FIM_PREFIX_ID: Final = 1
FIM_MIDDLE_ID: Final = 2
FIM_SUFFIX_ID: Final = 3
FIM_PAD_ID: Final = 4
SYSTEM_ID: Final = 5
USER_ID: Final = 6
ASSISTANT_ID: Final = 7
END_ID: Final = 8

ROLE_IDS: Final = {"system": SYSTEM_ID, "user": USER_ID, "assistant": ASSISTANT_ID}

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The chat form for libraries that render it as text (transformers, TRL)."""
