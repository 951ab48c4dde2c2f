"""OpenAI's own client against our HTTP face over a real engine, in one process."""

import asyncio
import gzip
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from components.core import artifact
from components.core.errors import ArtifactError
from components.serving.config import ServingConfig
from components.serving.gateway import api
from components.serving.gateway.api import DIGEST_HEADER, build
from components.serving.gateway.protocol import Answer, ApiError, Job, Refusal
from components.serving.gateway.responses import Telemetry, find_response
from components.serving.gateway.router import Table, choose
from components.serving.replicas.model_server import PROBED_CHARACTERS, ModelServer, too_long
from components.serving.versions import WeightedVersion
from components.tokens.encoding.codec import TextCodec

CONFIG = ServingConfig(max_body_bytes=20_000, max_samples=4, max_stops=2)
SAMPLING: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0, "top_p": 1.0, "n": 1, "stop": (), "seed": None}
GREEDY: dict[str, Any] = {"model": "overnight", "prompt": "def add(", "max_tokens": 8, "temperature": 0}


class Local:
    """The gateway's place taken by a direct call of the model: same HTTP, same model, no Ray."""

    def __init__(self, server: ModelServer, digest: str, responses: Path) -> None:
        self.config = CONFIG
        self.telemetry = Telemetry(responses)
        self._server = server
        target = WeightedVersion(version=7, digest=digest, weight=100)
        self._table = Table(environment="production", commit="c" * 40, serving="s" * 64, targets=(target,))

    def table(self) -> Table:
        return self._table

    def route(self, model: str) -> WeightedVersion:
        target = choose(self._table, model, 0.5)
        if target is None:
            raise ApiError(404, f"The model {model!r} is not served", code="model_not_found", param="model")
        return target

    async def answer(self, target: WeightedVersion, job: Job) -> Answer:
        answer = await self._server.answer(job)
        if isinstance(answer, Refusal):
            raise ApiError(400, answer.message, code=answer.code, param=answer.param)
        return answer


@pytest.fixture(scope="session")
def server(random_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> ModelServer:
    return ModelServer(str(random_model(1)), str(tmp_path_factory.mktemp("engines")), 1, 4)


@pytest.fixture
def backend(server: ModelServer, random_model: Callable[[int], Path], tmp_path: Path) -> Local:
    return Local(server, artifact.read(random_model(1)).digest, tmp_path / "responses")


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def http(backend: Local, loop: asyncio.Runner) -> Iterator[httpx.AsyncClient]:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=build(backend)), base_url="http://gateway")
    yield client
    loop.run(client.aclose())


@pytest.fixture
def client(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="none", http_client=http, max_retries=0)


def test_completion_is_openai_s_and_names_its_model(
    client: openai.AsyncOpenAI, loop: asyncio.Runner, backend: Local
) -> None:
    raw = loop.run(client.completions.with_raw_response.create(**GREEDY))
    completion = raw.parse()
    (target,) = backend.table().targets
    assert raw.headers[DIGEST_HEADER] == target.digest
    assert completion.model == "overnight:7" and completion.object == "text_completion"
    assert completion.system_fingerprint == f"overnight:7@{target.digest[:16]}"
    assert completion.usage.completion_tokens <= 8
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    found = find_response(backend.telemetry.directory, completion.id)
    assert found is not None and found["digest"] == target.digest and found["version"] == 7
    assert find_response(backend.telemetry.directory, "cmpl-unknown") is None


def test_greedy_repeats_and_a_suffix_changes_the_answer(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    plain = [loop.run(client.completions.create(**GREEDY)).choices[0].text for _ in range(2)]
    filled = loop.run(client.completions.create(**GREEDY, suffix="\n    return a + b\n"))
    assert plain[0] == plain[1] != filled.choices[0].text
    assert filled.usage.prompt_tokens > 5


def test_n_samples_of_each_prompt_in_order(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    request = {**GREEDY, "temperature": 1.0, "prompt": ["def add(", "class Point"], "n": 2}
    choices = loop.run(client.completions.create(**request)).choices
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in choices}) > 1


def test_a_seed_repeats_samples(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    def texts(seed: int) -> list[str]:
        request = {**GREEDY, "temperature": 1.0, "n": 3, "seed": seed}
        return [choice.text for choice in loop.run(client.completions.create(**request)).choices]

    assert texts(1) == texts(1) != texts(2)


def test_stop_strings_end_the_text_before_them(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    whole = loop.run(client.completions.create(**GREEDY)).choices[0].text
    stop = whole[3]
    choice = loop.run(client.completions.create(**GREEDY, stop=[stop, "never there"])).choices[0]
    assert choice.text == whole[: whole.index(stop)]
    assert choice.finish_reason == "stop"


def test_special_tokens_in_a_prompt_are_text(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    usage = loop.run(client.completions.create(**{**GREEDY, "prompt": "<|fim_middle|>"})).usage
    assert usage.prompt_tokens > 2


def test_stream_carries_the_same_text(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    async def collect() -> list[Any]:
        stream = await client.completions.create(**GREEDY, n=2, stream=True, stream_options={"include_usage": True})
        return [event async for event in stream]

    whole = loop.run(client.completions.create(**GREEDY))
    *pieces, last = loop.run(collect())
    assert [piece.choices[0].text for piece in pieces] == [whole.choices[0].text] * 2
    assert last.choices == [] and last.usage.prompt_tokens == whole.usage.prompt_tokens


def test_chat(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "add two numbers"}]
    answer = loop.run(
        client.chat.completions.create(model="overnight:7", messages=messages, max_completion_tokens=6, temperature=0)
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens <= 6
    unbounded = loop.run(client.chat.completions.create(model="overnight", messages=messages, temperature=0))
    assert unbounded.usage.total_tokens <= 128


def test_models_are_listed(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    async def names() -> list[str]:
        return [model.id async for model in client.models.list()]

    assert loop.run(names()) == ["overnight", "overnight:7"]


@pytest.mark.parametrize(
    ("change", "status", "code", "param", "message"),
    [
        ({"model": "gpt-4"}, 404, "model_not_found", "model", "'gpt-4' is not served"),
        ({"model": "overnight:8"}, 404, "model_not_found", "model", "not served"),
        ({"n": 1_000_000}, 400, "invalid_value", "n", "at most 4"),
        ({"n": 0}, 400, "invalid_value", "n", "greater than or equal to 1"),
        ({"prompt": ["a"] * 5}, 400, "invalid_value", "n", "5 samples"),
        ({"prompt": "x" * 400}, 400, "context_length_exceeded", "prompt", "the context holds 128 tokens"),
        ({"max_tokens": 128}, 400, "context_length_exceeded", "prompt", "max_tokens is 128"),
        ({"max_tokens": 0}, 400, "invalid_value", "max_tokens", "greater than or equal to 1"),
        ({"temperature": -1}, 400, "invalid_value", "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, 400, "invalid_value", "top_p", "greater than 0"),
        ({"stop": ["a", "b", "c"]}, 400, "invalid_value", "stop", "at most 2"),
        ({"stop": ""}, 400, "invalid_value", "stop", "empty stop string"),
        ({"prompt": [1, 2]}, 400, "invalid_value", "prompt", "valid string"),
        ({"prompt": []}, 400, "invalid_value", "prompt", "at least 1"),
        ({"logprobs": 3}, 400, "unsupported_parameter", "logprobs", "logprobs is not supported"),
        ({"prompt": "x" * 20_000}, 413, "request_too_large", None, "larger than 20000 bytes"),
    ],
)
def test_bad_requests(
    client: openai.AsyncOpenAI,
    loop: asyncio.Runner,
    change: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
    message: str,
) -> None:
    with pytest.raises(openai.APIStatusError, match=message) as caught:
        loop.run(client.completions.create(**{**GREEDY, **change}))
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/completions", b"{", 400, "The body is not JSON"),
        ("POST", "/v1/completions", b"\xff", 400, "The body is not JSON"),
        ("POST", "/v1/completions", b"[]", 400, "the body"),
        ("POST", "/v1/completions", b'{"prompt": "a"}', 400, "model is missing"),
        ("GET", "/v1/completions", b"", 405, "method not allowed"),
        ("GET", "/v1/nothing", b"", 404, "not found"),
    ],
)
def test_bad_http_gets_openai_s_error(
    http: httpx.AsyncClient, loop: asyncio.Runner, method: str, path: str, body: bytes, status: int, message: str
) -> None:
    response = loop.run(http.request(method, path, content=body))
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and message in error["message"]


def test_a_body_is_read_no_further_than_its_limit(http: httpx.AsyncClient, loop: asyncio.Runner) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 1000
            yield b"x" * 1000

    assert loop.run(http.post("/v1/completions", content=endless())).status_code == 413
    assert sent <= CONFIG.max_body_bytes + 2000


def test_requests_at_once_get_the_answers_they_get_alone(client: openai.AsyncOpenAI, loop: asyncio.Runner) -> None:
    prompts = [f"def f{number}(" for number in range(12)]
    requests = [{**GREEDY, "prompt": prompt, "max_tokens": 3 + index % 2} for index, prompt in enumerate(prompts)]

    async def together() -> list[str]:
        answers = await asyncio.gather(*(client.completions.create(**request) for request in requests))
        return [answer.choices[0].text for answer in answers]

    alone = [loop.run(client.completions.create(**request)).choices[0].text for request in requests]
    assert loop.run(together()) == alone


@pytest.mark.parametrize(
    "odd",
    [
        {"temperature": 1e-46},
        {"temperature": 1e-45},
        {"temperature": 1e-39},
        {"temperature": 5e-324},
        {"temperature": 1e-9, "top_p": 0.5, "n": 2},
        {"temperature": 1.0, "top_p": 1e-46},
        {"temperature": 2.0, "top_p": 5e-324, "seed": 2**32 - 1},
        {"temperature": 1e-46, "seed": 3},
    ],
)
def test_a_value_below_float32_is_greedy_and_harms_nobody(
    client: openai.AsyncOpenAI, loop: asyncio.Runner, odd: dict[str, Any]
) -> None:
    """What float32 cannot hold, or divide by, means what it says: the most probable token."""

    async def together() -> list[str]:
        requests = [GREEDY, GREEDY, {**GREEDY, **odd}, GREEDY]
        answers = await asyncio.gather(*(client.completions.create(**request) for request in requests))
        return [choice.text for answer in answers for choice in answer.choices]

    wanted = loop.run(client.completions.create(**GREEDY)).choices[0].text
    assert wanted and loop.run(together()) == [wanted] * (3 + odd.get("n", 1))


def test_a_prompt_without_a_chance_costs_what_the_context_costs(random_model: Callable[[int], Path]) -> None:
    """Characters that were encoded, of a prompt that is longer and longer; short ones are not refused by length."""
    encoded: list[int] = []

    class Counting(TextCodec):
        def encode(self, text: str) -> list[int]:
            encoded.append(len(text))
            return super().encode(text)

    codec, context = Counting(random_model(1)), 128

    def refusal(text: str, *, suffix: str | None = None) -> Refusal | None:
        encoded.clear()
        return too_long(codec, Job(prompts=("a", text), suffix=suffix, **SAMPLING), context)

    for length in (2 * PROBED_CHARACTERS * context, 10**5, 10**6):
        for found in (refusal("x" * length), refusal("y", suffix="x" * length)):
            assert found is not None and found.code == "context_length_exceeded" and str(length)[:2] in found.message
            assert sum(encoded) <= PROBED_CHARACTERS * context
    chat = Job(messages=(("user", "x" * 10**5), ("user", "x" * 10**5)), **SAMPLING)
    told = too_long(codec, chat, context)
    assert told is not None and told.param == "messages" and "200000 characters" in told.message
    assert refusal("x" * context) is None and not encoded


def test_a_body_that_does_not_arrive_is_let_go(
    http: httpx.AsyncClient, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "BODY_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    response = loop.run(http.post("/v1/completions", content=slow()))
    assert response.status_code == 408 and "did not arrive" in response.json()["error"]["message"]


def test_a_compressed_body_is_refused_by_name(http: httpx.AsyncClient, loop: asyncio.Runner) -> None:
    body = gzip.compress(json.dumps(GREEDY).encode())
    response = loop.run(http.post("/v1/completions", content=body, headers={"content-encoding": "gzip"}))
    assert response.status_code == 415 and "gzip" in response.json()["error"]["message"]


def test_a_model_with_a_file_more_is_not_served(random_model: Callable[[int], Path], tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(random_model(1), directory)
    shutil.copyfile(random_model(2) / "model.safetensors", directory / "model_zz.safetensors")
    with pytest.raises(ArtifactError, match=r"model_zz\.safetensors: a file that the manifest does not list"):
        ModelServer(str(directory), str(tmp_path / "engines"), 1, 4)


def test_metrics_count_answers_and_refusals(http: httpx.AsyncClient, loop: asyncio.Runner) -> None:
    loop.run(http.post("/v1/completions", json=GREEDY))
    loop.run(http.post("/v1/completions", json={**GREEDY, "model": "gpt-4"}))
    lines = loop.run(http.get("/metrics")).text.splitlines()
    assert 'overnight_requests_total{status="200",version="7"} 1.0' in lines
    assert 'overnight_requests_total{status="404",version="none"} 1.0' in lines
    assert 'overnight_request_seconds_count{version="7"} 1.0' in lines


def test_health_says_what_is_served(http: httpx.AsyncClient, loop: asyncio.Runner, backend: Local) -> None:
    response = loop.run(http.get("/healthz"))
    assert response.json() == {"status": "ok", **json.loads(backend.table().model_dump_json())}


@pytest.mark.parametrize(
    ("token", "path", "body", "param"),
    [
        ("<|fim_prefix|>", "/v1/completions", {**GREEDY, "suffix": "b"}, "suffix"),
        ("<|user|>", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, "messages"),
    ],
)
def test_what_a_tokenizer_has_no_token_for_is_refused_by_name(
    random_model: Callable[[int], Path],
    tmp_path: Path,
    loop: asyncio.Runner,
    token: str,
    path: str,
    body: dict[str, Any],
    param: str,
) -> None:
    directory = tmp_path / "model"
    with artifact.create(directory, stage="pretrain", config=CONFIG, inputs=[], code=Path(api.__file__)) as draft:
        for each in artifact.files(random_model(1), "*"):
            shutil.copyfile(each, draft.path / each.name)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (draft.path / name).write_text((draft.path / name).read_text().replace(token, "<|other|>"))
    plain = build(Local(ModelServer(str(directory), str(tmp_path), 1, 4), "d" * 64, tmp_path))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=plain), base_url="http://gateway") as client:
            return await client.post(path, json={"model": "overnight", **body})

    error = loop.run(ask()).json()["error"]
    assert (error["param"], error["code"]) == (param, "unsupported_parameter") and "tokenizer has no" in error[
        "message"
    ]
