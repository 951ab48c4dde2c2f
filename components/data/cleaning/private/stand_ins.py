"""Values that say of themselves that they are no secret: your-api-key, changeme, ${PASSWORD}, a regular expression."""

import re

_WORDS = re.compile(
    r"example|placeholder|change.?(?:me|this|it)|your|dummy|fake|test|sample|todo|redacted|insert|replace|xxxx|"
    r"\.\.\.|^my[_-]|mysecret|mypass|secret.?key|api.?key|pass.?word|passw0rd|token|foobar|deadbeef|abc123|abcdef|"
    r"12345|qwerty|correct.?horse|unused|mock|1a2b3c|invalid|wrong|bogus|%20|\bsecret",
    re.IGNORECASE,
)
_HOLES = re.compile(r"\*\*\*|^<|\$[({]|\{\{|\}\}|%[(s]|\{[a-z_.]+\}")
_EXPRESSIONS = re.compile(
    r"\[[^\]]*\w-\w[^\]]*\]|\(\?[:=!P<]|\{\d+(?:,\d*)?\}|"  # regular expressions
    r"\(\{|\}\)|:\(|\(\)|=>|[=!]=\w|,[a-z]{2,}:|[|].*[|]|^[A-Za-z_]\w*[(\[{]|\]\."  # code between two strings
)


def is_stand_in(value: str) -> bool:
    """Whether a value stands for another, or is code that a quote before and after it made look like a string."""
    return any(pattern.search(value) for pattern in (_WORDS, _HOLES, _EXPRESSIONS))
