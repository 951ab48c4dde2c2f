"""What a body may cost before it is known to be right: the work is bounded by its bytes, not by what they claim."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.serving.gateway.protocol import (
    MAX_MARKS,
    MAX_MESSAGES,
    ApiError,
    ChatRequest,
    CompletionRequest,
    Generation,
    marks,
    parse,
)

SIZE = 600_000
HEAD = b'{"model":"overnight","prompt":"a",'


def repeated(start: bytes, unit: bytes, end: bytes, size: int = SIZE) -> bytes:
    """`unit` again and again, commas between them, between a start and an end."""
    return start + b",".join([unit] * (size // (len(unit) + 1))) + end


def keys(start: bytes, value: bytes, end: bytes, count: int = SIZE // 12) -> bytes:
    """Different keys of one value, between a start and an end."""
    return start + b",".join(b'"key%d":%s' % (number, value) for number in range(count)) + end


LISTS = {
    "messages of numbers": repeated(b'{"model":"a","messages":[', b"1", b"]}"),
    "messages of nulls": repeated(b'{"model":"a","messages":[', b"null", b"]}"),
    "messages of objects": repeated(b'{"model":"a","messages":[', b"{}", b"]}"),
    "messages of lists": repeated(b'{"model":"a","messages":[', b"[]", b"]}"),
    "messages of a wrong role": repeated(b'{"model":"a","messages":[', b'{"role":"x","content":1}', b"]}"),
    "messages that are right": repeated(b'{"model":"a","messages":[', b'{"role":"user","content":"a"}', b"]}"),
    "messages as an object": keys(b'{"model":"a","messages":{', b"1", b"}}"),
    "keys of a message": keys(b'{"model":"a","messages":[{"role":"user",', b"1", b"}]}"),
    "content of parts": repeated(b'{"model":"a","messages":[{"role":"user","content":[', b'{"type":"text"}', b"]}]}"),
    "prompts": repeated(b'{"model":"a","prompt":[', b'""', b"]}"),
    "prompts of numbers": repeated(b'{"model":"a","prompt":[', b"7", b"]}"),
    "prompts of lists": repeated(b'{"model":"a","prompt":[', b"[7]", b"]}"),
    "prompts of lists of no end": b'{"model":"a","prompt":' + b"[" * SIZE,
    "stops": repeated(HEAD + b'"stop":[', b'"a"', b"]}"),
    "stops of numbers": repeated(HEAD + b'"stop":[', b"1", b"]}"),
    "logit_bias": keys(HEAD + b'"logit_bias":{', b"1", b"}}"),
    "stream_options": keys(HEAD + b'"stream_options":{', b"1", b"}}"),
    "user as a list": repeated(HEAD + b'"user":[', b"{}", b"]}"),
    "unknown keys": keys(HEAD, b"1", b"}"),
    "unknown keys of null": keys(HEAD, b"null", b"}"),
    "one key again and again": repeated(HEAD, b'"n":1', b"}"),
    "a list at the top": repeated(b"[", b"[]", b"]"),
    "objects of no end": b'{"a":' * (SIZE // 5),
}


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that Python allocated while something ran."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(body: bytes) -> ApiError:
    request_type: type[Generation] = ChatRequest if b'"messages"' in body else CompletionRequest
    with pytest.raises(ApiError) as caught:
        parse(body, request_type)
    return caught.value


@pytest.mark.parametrize("name", LISTS)
def test_many_values_are_refused_before_they_are_made(name: str) -> None:
    error: list[ApiError] = []
    assert peak_bytes(lambda: error.append(refused(LISTS[name]))) < 5 * len(LISTS[name])
    assert error[0].status == 400 and error[0].code == "too_many_values"
    assert str(MAX_MARKS) in str(error[0]) and len(str(error[0])) < 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (repeated(b'{"model":"a","messages":[', b"1", b"]}", 2 * 9_000), "messages[0]: input should be an object"),
        (repeated(b'{"model":"a","prompt":[', b"1", b"]}", 2 * 9_000), "prompt[0]: input should be a valid string"),
        (repeated(HEAD + b'"stop":[', b"1", b"]}", 2 * 9_000), "stop[0]: input should be a valid string"),
        (keys(HEAD, b"1", b"}", 4_000), "key0 is not supported; supported: max_tokens"),
        (
            keys(b'{"model":"a","messages":[{"role":"user","content":"a",', b"1", b"}]}", 4_000),
            "messages[0].key0 is not supported; supported: content, role",
        ),
        (
            keys(HEAD + b'"stream_options":{', b"1", b"}}", 4_000),
            "stream_options.key0 is not supported; supported: inc",
        ),
    ],
)
def test_of_many_mistakes_the_first_is_told_and_the_rest_not_collected(body: bytes, message: str) -> None:
    """pydantic adds at most one about the list as a whole."""
    error = refused(body)
    assert str(error).startswith(message)
    assert isinstance(error.__cause__, ValidationError) and error.__cause__.error_count() <= 2


def test_a_list_of_messages_has_an_end() -> None:
    message = {"role": "user", "content": "a"}
    right = {"model": "a", "messages": [message] * MAX_MESSAGES}
    assert len(parse(json.dumps(right).encode(), ChatRequest).messages) == MAX_MESSAGES
    error = refused(json.dumps({**right, "messages": [message] * (MAX_MESSAGES + 1)}).encode())
    assert f"at most {MAX_MESSAGES}" in str(error) and error.param == "messages"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k" * SIZE: 1}, "is not supported"),
        ({"model": "k" * SIZE}, "model: string should have at most 200"),
        ({"stop": "k" * SIZE}, "stop[0]: string should have at most 1000"),
        ({"max_tokens": 10**4000}, "max_tokens: input should be less than or equal to 2147483647"),
        ({"max_tokens": 2**31}, "max_tokens: input should be less than or equal to 2147483647"),
        ({"max_tokens": "9" * SIZE}, "max_tokens: unable to parse"),
        ({"n": 10**4000}, "n: input should be less than or equal to 2147483647"),
        ({"seed": 2**32}, "seed: input should be less than 4294967296"),
        ({"seed": 2**64}, "seed: input should be less than 4294967296"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0"),
        ({"temperature": 1e39}, "temperature: input should be less than or equal to 2"),
        ({"temperature": "nan"}, "temperature: input should be less than or equal to 2"),
        ({"temperature": float("nan")}, "The body is not JSON"),
        ({"top_p": float("inf")}, "The body is not JSON"),
        ({"user": "\ud800"}, "The body is not JSON"),
    ],
)
def test_one_value_out_of_bounds_is_told_shortly(change: dict[str, Any], message: str) -> None:
    error = refused(json.dumps({"model": "a", "prompt": "a", **change}).encode())
    assert message in str(error) and len(str(error)) < 300 and len(error.param or "") < 100


def test_what_is_in_strings_does_not_count() -> None:
    """A prompt of code is full of commas and brackets, of escaped quotes and of escaped backslashes before quotes."""
    for unit in ("f(a, [b, {c: d}])", '"\\"', '\\",[', "\\\\", '\\\\",'):
        prompt = unit * MAX_MARKS
        assert parse(json.dumps({"model": "a", "prompt": prompt}).encode(), CompletionRequest).prompt == (prompt,)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def _marks(value: object) -> int:
    if isinstance(value, dict):
        return max(2 * len(value), 1) + sum(map(_marks, value.values()))
    if isinstance(value, list):
        return max(len(value), 1) + sum(map(_marks, value))
    return 0


@settings(max_examples=40)
@given(json_values)
def test_marks_are_counted_outside_of_strings(value: object) -> None:
    """Behind a string that alone has too many."""
    body = json.dumps([",:[{" * (MAX_MARKS // 4 + 1), value]).encode()
    assert marks(body) == 2 + _marks(value)
