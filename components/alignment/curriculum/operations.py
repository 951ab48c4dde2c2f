"""What the curriculum's functions do: typed operations, each an expression of `_` with several wordings.

Covers: integers, truth values, texts, lists of integers, lists of words, dictionaries from words to integers.
Not covered: floats, sets, classes, operations that can fail on a value of their type.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["integer", "truth", "text", "numbers", "words", "counts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`expression` is Python's, of an operand `_` and perhaps a number `K`; each wording says it of `{x}` and `{k}`."""

    name: str
    takes: Kind
    gives: Kind
    expression: str
    wordings: tuple[str, ...]


def _operations(takes: Kind, gives: Kind, table: dict[str, tuple[str, tuple[str, ...]]]) -> list[Operation]:
    return [
        Operation(name=name, takes=takes, gives=gives, expression=expression, wordings=wordings)
        for name, (expression, wordings) in table.items()
    ]


OPERATORS: tuple[Operation, ...] = (
    *_operations(
        "integer",
        "integer",
        {
            "add": ("_ + K", ("{x} plus {k}", "the sum of {x} and {k}", "{x} increased by {k}")),
            "subtract": ("_ - K", ("{x} minus {k}", "{x} decreased by {k}", "{k} less than {x}")),
            "multiply": ("_ * K", ("{x} times {k}", "{x} multiplied by {k}", "the product of {x} and {k}")),
            "remainder": (
                "_ % K",
                ("{x} modulo {k}", "the remainder of {x} divided by {k}", "what is left of {x} after division by {k}"),
            ),
            "divide": (
                "_ // K",
                (
                    "{x} divided by {k}, rounded down",
                    "how many times {k} goes into {x}",
                    "the whole part of {x} divided by {k}",
                ),
            ),
            "square": ("_ ** 2", ("the square of {x}", "{x} squared", "{x} multiplied by itself")),
            "negate": ("-_", ("the negative of {x}", "minus {x}", "{x} with its sign changed")),
        },
    ),
    *_operations(
        "integer",
        "truth",
        {
            "even": ("_ % 2 == 0", ("True if {x} is even", "whether {x} is even", "True when two divides {x}")),
            "odd": ("_ % 2 == 1", ("True if {x} is odd", "whether {x} is odd", "True when two does not divide {x}")),
            "greater": (
                "_ > K",
                ("True if {x} is greater than {k}", "whether {x} exceeds {k}", "True when {x} is above {k}"),
            ),
            "less": (
                "_ < K",
                ("True if {x} is less than {k}", "whether {x} is smaller than {k}", "True when {x} is below {k}"),
            ),
        },
    ),
    *_operations(
        "numbers",
        "integer",
        {
            "first": ("_[0]", ("the first of {x}", "the first element of {x}", "the element that begins {x}")),
            "last": ("_[-1]", ("the last of {x}", "the last element of {x}", "the element that ends {x}")),
        },
    ),
    *_operations(
        "numbers",
        "numbers",
        {
            "reverse": ("_[::-1]", ("{x} reversed", "{x} in reverse order", "the elements of {x} backwards")),
            "head": (
                "_[:K]",
                (
                    "the first {k} elements of {x}",
                    "{x} cut after {k} elements",
                    "at most {k} elements from the start of {x}",
                ),
            ),
            "drop": (
                "_[K:]",
                ("{x} without its first {k} elements", "all but the first {k} of {x}", "{x} from element {k} on"),
            ),
            "twice": ("_ * 2", ("{x} repeated twice", "{x} followed by itself", "two copies of {x} in one list")),
        },
    ),
    *_operations(
        "text",
        "text",
        {
            "backwards": (
                "_[::-1]",
                ("the text {x} backwards", "the characters of {x} in reverse", "{x} read from the end"),
            ),
            "prefix": (
                "_[:K]",
                (
                    "the first {k} characters of {x}",
                    "{x} cut after {k} characters",
                    "at most {k} characters from the start of {x}",
                ),
            ),
            "repeat": (
                "_ * K",
                ("{x} repeated {k} times", "{k} copies of the text {x}", "the text {x} written {k} times"),
            ),
        },
    ),
)

BUILTINS: tuple[Operation, ...] = (
    *_operations(
        "integer",
        "integer",
        {
            "absolute": ("abs(_)", ("the absolute value of {x}", "{x} without its sign", "the magnitude of {x}")),
            "at_least": (
                "max(_, K)",
                ("the larger of {x} and {k}", "{x}, but at least {k}", "whichever is greater, {x} or {k}"),
            ),
            "at_most": (
                "min(_, K)",
                ("the smaller of {x} and {k}", "{x}, but at most {k}", "whichever is less, {x} or {k}"),
            ),
        },
    ),
    *_operations(
        "integer", "text", {"string": ("str(_)", ("{x} as a string", "the text of {x}", "{x} converted to text"))}
    ),
    *_operations(
        "numbers",
        "integer",
        {
            "length": ("len(_)", ("the length of {x}", "the number of elements of {x}", "how many elements {x} has")),
            "sum": ("sum(_)", ("the sum of {x}", "the total of {x}", "all of {x} added up")),
            "largest": ("max(_)", ("the largest of {x}", "the maximum of {x}", "the greatest element of {x}")),
            "smallest": ("min(_)", ("the smallest of {x}", "the minimum of {x}", "the least element of {x}")),
        },
    ),
    *_operations(
        "numbers",
        "numbers",
        {
            "sort": ("sorted(_)", ("{x} sorted", "the elements of {x} in order", "{x} in ascending order")),
            "descend": (
                "sorted(_, reverse=True)",
                ("{x} in descending order", "{x} sorted from large to small", "the elements of {x}, the largest first"),
            ),
        },
    ),
    *_operations(
        "text",
        "text",
        {
            "upper": ("_.upper()", ("{x} in upper case", "{x} in capital letters", "{x} converted to upper case")),
            "lower": ("_.lower()", ("{x} in lower case", "{x} in small letters", "{x} converted to lower case")),
            "strip": (
                "_.strip()",
                ("{x} without surrounding spaces", "{x} stripped", "{x} with spaces at both ends removed"),
            ),
        },
    ),
    *_operations(
        "text",
        "integer",
        {
            "characters": (
                "len(_)",
                ("the number of characters of {x}", "the length of the text {x}", "how many characters {x} has"),
            )
        },
    ),
    *_operations(
        "text",
        "words",
        {"split": ("_.split()", ("the words of {x}", "{x} split into words", "a list of the words in {x}"))},
    ),
    *_operations(
        "words",
        "text",
        {
            "join": (
                "' '.join(_)",
                ("the words {x} joined by spaces", "{x} as one text", "all words of {x} with spaces between"),
            ),
            "commas": (
                "', '.join(_)",
                (
                    "the words {x} separated by commas",
                    "{x} as a list with commas",
                    "all words of {x} with commas between",
                ),
            ),
        },
    ),
    *_operations(
        "words",
        "integer",
        {"count": ("len(_)", ("the number of words in {x}", "how many words {x} holds", "the count of words of {x}"))},
    ),
    *_operations(
        "words",
        "words",
        {
            "alphabetical": (
                "sorted(_)",
                ("the words {x} in alphabetical order", "{x} sorted by the alphabet", "the words of {x} from a to z"),
            ),
            "by_length": (
                "sorted(_, key=len)",
                (
                    "the words {x} sorted by length",
                    "{x} with the shortest word first",
                    "the words of {x} from short to long",
                ),
            ),
        },
    ),
    *_operations(
        "counts",
        "integer",
        {
            "entries": (
                "len(_)",
                ("the number of keys in {x}", "how many entries {x} has", "the size of the dictionary {x}"),
            ),
            "total": (
                "sum(_.values())",
                ("the sum of the values of {x}", "the total of all values in {x}", "all values of {x} added up"),
            ),
            "highest": (
                "max(_.values())",
                ("the largest value of {x}", "the maximum of the values in {x}", "the greatest value that {x} holds"),
            ),
        },
    ),
    *_operations(
        "counts",
        "words",
        {
            "keys": ("list(_)", ("the keys of {x}", "a list of the keys of {x}", "all keys that {x} has")),
            "sorted_keys": (
                "sorted(_)",
                ("the keys of {x} in alphabetical order", "the sorted keys of {x}", "the keys of {x} from a to z"),
            ),
        },
    ),
    *_operations(
        "counts",
        "numbers",
        {
            "values": (
                "list(_.values())",
                ("the values of {x}", "a list of the values of {x}", "all values that {x} holds"),
            )
        },
    ),
)
OPERATIONS = (*OPERATORS, *BUILTINS)

# What a loop makes of each element, and which elements it takes.
MAPPED = _operations(
    "integer",
    "integer",
    {
        "square": ("_ ** 2", ("squares", "squared values")),
        "double": ("_ * 2", ("doubles", "values times two")),
        "absolute": ("abs(_)", ("absolute values", "magnitudes")),
        "plain": ("_", ("values", "numbers")),
    },
)
FILTERS = _operations(
    "integer",
    "truth",
    {
        "even": ("_ % 2 == 0", ("even elements", "elements that two divides")),
        "odd": ("_ % 2 == 1", ("odd elements", "elements that are odd")),
        "positive": ("_ > 0", ("positive elements", "elements above zero")),
        "large": ("_ > K", ("elements greater than {k}", "elements above {k}")),
        "every": ("True", ("elements", "members")),
    },
)

NAMES: dict[Kind, tuple[str, ...]] = {
    "integer": ("x", "n", "value", "number", "amount", "size", "index", "score"),
    "text": ("text", "word", "line", "name", "s", "title", "label", "content"),
    "numbers": ("items", "values", "numbers", "data", "scores", "results", "xs", "array"),
    "words": ("words", "parts", "names", "lines", "tokens", "labels", "tags", "keys"),
    "counts": ("counts", "table", "mapping", "ages", "prices", "stock", "totals", "d"),
}
VALUES: dict[Kind, tuple[object, ...]] = {
    "integer": (0, 3, -7, 12, 25),
    "text": ("Hello World", " a bc ", "Python", "x Y z ", "level"),
    "numbers": ([3, 1, 2], [5], [9, -4, 4, 0, 7], [2, 2, 8, 1], [10, 20, 30, 40, 50, 60, 70, 80, 90, 15, 25]),
    "words": (["pear", "fig"], ["One"], ["x", "Y", "zz"], ["hello", "world", "again", "to"], ["q", "r", "q"]),
    "counts": ({"a": 1}, {"x": 3, "b": 7}, {"pear": 2, "fig": 5, "Kiwi": 0}, {"q": 9, "p": -1, "r": 4, "o": 4}),
}
