"""Secrets that only the name before them gives away: `api_key = "..."`, `DB_PASSWORD=...`, `Authorization: Bearer ...`.

Covers: assignments, arguments, dictionary entries, headers, options, query parameters and elements of configuration
files whose name ends in a word for a secret, when the value looks random: enough Shannon entropy for its alphabet, and
neither words, nor a path, a placeholder, a hash of a password.
Not covered: passwords of plain words (`correct horse`), shorter than eight characters, values without such a name.
"""

import math
import re
from collections import Counter

from components.data.cleaning.private.rule import Accept, Rule, words
from components.data.cleaning.private.stand_ins import is_stand_in
from components.data.config import RedactConfig

_ROOT = (
    r"(?:pass(?:w(?:or)?d|phrase|wort|wd)?|pwd|pw|secret|token|(?:(?:api|access|secret|private) )?key|auth|credential|"
    r"bearer|basic|identified)"
)
# A name that holds a word for a secret, what may close it, and what may stand between name and value.
_NAME = rf"(?P<name>(?i:{_ROOT})[A-Za-z0-9_.\-]{{0,24}})"
_QUERY_BEFORE = re.compile(r"[?&][A-Za-z0-9_.\-]*$")
_NAME_BEFORE = re.compile(r"(?:(?:next|page) )?(?:page )?[A-Za-z0-9_.\-:]*$")
_CLOSE = r"[\\\"'`\[\])*]{0,4}"
_TYPE = r"(?::[ ]?&?[A-Za-z_][A-Za-z0-9_\[\]|. ]{0,24}=|\{[a-z; ]{1,20}\}[ ]?=)"
_BETWEEN = rf"[ \t]{{0,16}}(?P<sign>{_TYPE}|value=|=>|:=|={{1,3}}|\|\||[:,({{]|BY\b)?[ \t]{{0,16}}"
_OPEN = r"(?:[bfuBFU@$]{0,2}|\[\]byte\(|Basic |Bearer )\\?[\"'`](?:Bearer |Basic |token )?"
_QUOTED = re.compile(rf"{_NAME}{_CLOSE}{_BETWEEN}{_OPEN}(?P<value>[^\s\"'`\\]{{6,512}})[\"'`\\]")
# Without quotes: after = or :, in XML after >, after a header's scheme, or as the next word after an option.
_VALUE = r"(?P<value>[^\s\"'`<>\\,;()\[\]]{8,512})(?=$|[\s\"'`<\\,;)])"
_SCHEME = "(?:Bearer |Basic |token )?"
_BARE = re.compile(rf"{_NAME}[\"'`\])*]{{0,2}}[ \t]{{0,4}}[:=>][ \t]{{0,4}}`?{_SCHEME}{_VALUE}")
_WORD_AFTER = re.compile(
    rf"(?:--[a-z\-]{{0,24}}|\bENV [A-Z_]{{0,40}}|\blogin \S{{1,64}} |[Aa]uthorization: ?){_NAME}[ \t]{_VALUE}"
)
_QUERY = re.compile(r"[?&](?P<name>[A-Za-z0-9_.\-]{3,40})=(?P<value>[^\s\"'`<>\\&#]{8,512})")
_USER = re.compile(r"(?:-u|--user)[ =]\"?[A-Za-z0-9_.\-]{1,64}:(?P<value>[^\s\"'@]{6,64})")
_SSHPASS = re.compile(r"sshpass -p ?['\"]?(?P<value>[^\s'\"]{6,64})")
# An unquoted value that is an expression, such as self.tokens2 or a.b1.
_CODE = re.compile(r"^[A-Za-z_]\w*\.[A-Za-z_]\w*(?:\.|$)")
_VARIABLE = re.compile(r"^[ \t]+=[ \t]+[A-Za-z_]\w*(?:[;,)]| [+*?])")
# Eight characters or more with a digit in them. Without bounds above: those make the column's engine 50 times slower.
_HINT = rf"(?i:{_ROOT})[^\n]*[\"'`:=> \t](?:[^\s\"'`]{{4,}}[0-9]|[^\s\"'`]*[0-9][^\s\"'`]{{3,}})"

_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = words(
    "password passwd passphrase passwort pwd pass pw secret secrets token tokens apikey apitoken authtoken accesstoken "
    "authkey accesskey secretkey clientsecret appsecret credential credentials bearer basic auth authorization "
    "identified"
)
# `key` alone is any key of any mapping; with these before it, it opens something.
_KEY_QUALIFIERS = words(
    "api access secret private auth signing encryption encrypt app consumer account shared license client service "
    "master session hmac jwt fernet storage maps aes crypto webhook"
)
# What may stand after the word and leaves it a secret: where it is used, which one of several.
_TAILS = words("prod production dev staging live default value base str string env v")
# Words that make it another thing: public by design, places of text, cursors, digests, names of models' tokens.
_OTHER_THINGS = words(
    "public publishable page next pad eos bos mask cls sep unk special hash hashed hashes digest continuation cursor "
    "cache sort primary foreign partition additional publickey kms csrf idempotency sync encoder lexer "
    "lock change action request output input start starting shard pagination"
)
_PASSWORD_WORDS = words("password passwd passphrase passwort pwd pass pw secret identified")

_ELSEWHERE = re.compile(
    r"^(?:\.?/[a-z]+/|~/|\$|!|@|#|\^|0x|https?:|urn:|arn:|file:|sha\d{3}[-:]|md5:|\{SSHA\}|\{bcrypt\}|\$2[aby]\$|pbkdf2)|://"
)
_HEX = re.compile(r"^[0-9a-f]{16,}$|^[0-9A-F]{16,}$")
_UUID = re.compile(r"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
_WORDS = re.compile(r"^(?:[A-Za-z][a-z]*|[A-Z]+|\d{1,4})$")


def entropy_bits(value: str) -> float:
    """Shannon entropy of the characters of a value, bits per character."""
    total = len(value)
    return -sum(count / total * math.log2(count / total) for count in Counter(value).values())


def names_secret(name: str) -> bool:
    """Whether an identifier ends in a word for a secret: apiKey, DB_PASSWORD, token_2, not token_url or cache_key."""
    if name.count(":") >= 2:
        return False  # a type or a path of a resource: AWS::AppSync::ApiKey, arn:aws:secretsmanager:...:secret
    parts = [word.lower() for word in _CAMEL.findall(name)]
    while len(parts) > 1 and (parts[-1].isdigit() or parts[-1] in _TAILS):
        parts.pop()
    if not parts or not _OTHER_THINGS.isdisjoint(parts):
        return False
    if parts[-1] in ("key", "keys"):
        return len(parts) > 1 and parts[-2] in _KEY_QUALIFIERS
    if parts[-2:] in (["client", "token"], ["update", "token"]):
        return False  # what makes a request one of a kind
    return parts[-1] in _SECRET_WORDS or parts[-1].endswith(("password", "passwd", "secret", "apikey"))


def is_random(value: str, config: RedactConfig, *, password: bool) -> bool:
    """Whether a value is a secret rather than words about one. `password`: its name allows what a person made up."""
    if is_stand_in(value) or _ELSEWHERE.search(value):
        return False
    if _HEX.match(value) or _UUID.match(value):
        return entropy_bits(value) >= config.min_hex_entropy_bits
    if _is_words(value):
        return password and _is_made_up(value)
    if len(value) >= config.min_key_characters:
        return bool(re.search(r"\d", value)) and entropy_bits(value) >= config.min_key_entropy_bits
    return password and _is_made_up(value)


def _is_words(value: str) -> bool:
    """Made of words and short numbers, as names of things are: user_profile_v2, label2, X-Auth-Token."""
    pieces = [piece for part in re.split(r"[^A-Za-z0-9]+", value) for piece in _CAMEL.findall(part)]
    return all(_WORDS.match(piece) for piece in pieces) and sum(map(len, pieces)) / max(1, len(pieces)) > 2.6


def _is_made_up(value: str) -> bool:
    """A password of a person: eight characters or more of three classes, with a sign or with digits amid letters."""
    if len(value) < 8 or not re.search(r"\d", value) or not re.search(r"[A-Za-z]", value):
        return False
    classes = sum(bool(re.search(each, value)) for each in (r"[a-z]", r"[A-Z]", r"\d", r"[^A-Za-z0-9]"))
    sign = re.search(r"[^A-Za-z0-9_.\-:/]", value)
    amid = re.search(r"\d[A-Za-z]", value)
    return classes >= 3 and bool(sign or amid)


def _judge(config: RedactConfig, *, bare: bool) -> Accept:
    """Whether a match's value is a secret by its name and its randomness."""

    def accept(match: re.Match[str]) -> bool:
        text = match.string
        start = match.start("name")
        before = _NAME_BEFORE.search(text, max(0, start - 40), start)
        full = (before[0] if before else "") + match["name"]
        scheme = match["name"].lower() in ("bearer", "basic")
        if not scheme and not names_secret(full):
            return False
        value = match["value"]
        if not bare and "sign" in match.re.groupindex and match["sign"] is None and not full.isupper():
            return False  # `value` right after a word of prose; API_KEY "value" is C's and SQL's way
        if bare and (_CODE.search(value) and not text.endswith("--", 0, start)):
            return False
        if bare and _VARIABLE.search(text[match.end("name") : match.end() + 2]):
            return False
        if bare and "&" in value and _QUERY_BEFORE.search(text, max(0, start - 41), start):
            return False
        parts = map(str.lower, _CAMEL.findall(full))
        password = not _PASSWORD_WORDS.isdisjoint(parts) or full.lower().endswith(("password", "passwd", "secret"))
        return is_random(value, config, password=password)

    return accept


def _judge_option(config: RedactConfig) -> Accept:
    return lambda match: is_random(match["value"], config, password=True)


def secret_rules(config: RedactConfig) -> tuple[Rule, ...]:
    """The rules for values that names give away, with the thresholds of the config."""
    rules = (
        ("secret_quoted", _HINT, _QUOTED, _judge(config, bare=False)),
        ("secret_bare", _HINT, _BARE, _judge(config, bare=True)),
        ("secret_next_word", _HINT, _WORD_AFTER, _judge(config, bare=False)),
        ("secret_query", r"[?&][A-Za-z0-9_.\-]{3,40}=[^\s&]{8}", _QUERY, _judge(config, bare=False)),
        ("option_user", r"(?:-u|--user)[ =]\"?[A-Za-z0-9_.\-]{1,64}:", _USER, _judge_option(config)),
        ("option_sshpass", "sshpass -p", _SSHPASS, _judge_option(config)),
    )
    return tuple(
        Rule(name=name, kind="key", hint=hint, pattern=pattern, accept=accept, group=pattern.groupindex["value"])
        for name, hint, pattern, accept in rules
    )
