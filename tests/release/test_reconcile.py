"""From a commit to an answer: a real Git, a real MLflow on SQLite, a real Ray Serve, OpenAI's own client.

The tests of this file share one Ray and one state. Each brings production to where it needs it, which costs nothing
where the test before left it there: starting a version or a gateway takes seconds.
"""

import logging
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import ray
from ray import serve

from components.core.config import Settings
from components.core.errors import ArtifactError, BusyError, ConfigError, OvernightError
from components.machine import services
from components.release import environment, registry
from components.release.config import ReleaseConfig
from components.release.environment import EnvironmentFile
from components.release.reconcile import reconcile
from components.release.status import EnvironmentStatus, read_status
from components.serving.config import ServingConfig
from components.serving.gateway.responses import find_response
from components.serving.replicas import deploy
from components.serving.versions import WeightedVersion
from tests.release.test_environment import promote, push_tree, version
from tests.serving.random_model import write_random_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.in_order,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's sockets and logs
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
RELEASE = ReleaseConfig()
SERVING = ServingConfig(num_threads=1, drain_seconds=5)


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings(state=tmp_path_factory.mktemp("state"), gateway_port=services.free_port("127.0.0.1"))
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    yield settings
    ray.shutdown()


@pytest.fixture(scope="module")
def digests(production: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Digests of versions 1 and 2, registered."""
    root = tmp_path_factory.mktemp("models")
    models = [write_random_model(root / str(seed), seed) for seed in (1, 2)]
    found = [registry.register(production, model, tags={}, metrics={}) for model in models]
    assert [each.version for each in found] == [1, 2]
    return {each.version: each.digest for each in found}


def commit(settings: Settings, *versions: WeightedVersion) -> str:
    return environment.commit(
        settings,
        "production",
        RELEASE,
        change=lambda now: now.file.model_copy(update={"versions": versions}),
        subject="Promote",
        body="",
    ).commit


def run(settings: Settings) -> EnvironmentStatus:
    status = reconcile(settings, "production", RELEASE, SERVING)
    assert status == read_status(settings)
    return status.environments[0]


def client(settings: Settings) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{deploy.url(settings)}/v1", api_key="none", max_retries=0)


def models(settings: Settings, requests: int = 1) -> set[str]:
    with client(settings) as api:
        return {
            api.completions.create(model="overnight", prompt="def add(", max_tokens=2).model for _ in range(requests)
        }


def halves(digests: dict[int, str]) -> tuple[WeightedVersion, WeightedVersion]:
    """Both versions, half of the traffic each."""
    one, two = (WeightedVersion(version=version, digest=digests[version], weight=50) for version in (1, 2))
    return one, two


def by_hand(settings: Settings, tmp_path: Path, text: str) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", settings.state / "environments.git", clone], check=True)
    (clone / "production.yaml").write_text(text)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@localhost"]
    subprocess.run(["git", "-C", clone, *identity, "commit", "-qam", "Edit by hand"], check=True)
    subprocess.run(["git", "-C", clone, "push", "-q"], check=True)


def test_a_port_that_is_taken_is_named(production: Settings, digests: dict[int, str]) -> None:
    commit(production, WeightedVersion(version=1, digest=digests[1], weight=100))
    refused = pytest.raises(BusyError, match=f"port {production.gateway_port} on 127.0.0.1 .*held by process")
    with socket.create_server((production.host, production.gateway_port)), refused:
        run(production)
    (entry,) = read_status(production).environments
    assert entry.stale and entry.live_commit is None and "held by process" in entry.reason


def test_a_commit_becomes_an_answer(production: Settings, digests: dict[int, str]) -> None:
    wanted = commit(production, WeightedVersion(version=1, digest=digests[1], weight=100))
    entry = run(production)
    assert (entry.desired_commit, entry.live_commit, entry.stale) == (wanted, wanted, False)
    with client(production) as api:
        raw = api.completions.with_raw_response.create(
            model="overnight", prompt="def add(", suffix="\n", max_tokens=4, n=2
        )
        answer = raw.parse()
        assert len(answer.choices) == 2 and answer.model == "overnight:1"
        assert raw.headers["x-overnight-model-digest"] == digests[1]
        with pytest.raises(openai.NotFoundError):
            api.completions.create(model="gpt-4", prompt="")
    found = find_response(production.state / "responses", answer.id)
    assert found is not None and found["digest"] == digests[1]


def test_the_gateway_answers_programs_of_this_machine_and_no_page(
    production: Settings, digests: dict[int, str]
) -> None:
    """A page of evil.example whose name points to loopback would read what a private model knows."""
    commit(production, WeightedVersion(version=1, digest=digests[1], weight=100))
    run(production)
    url, body = deploy.url(production), {"model": "overnight", "prompt": "def add(", "max_tokens": 2}
    assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 200
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}):
        for path in ("/v1/models", "/healthz", "/metrics"):
            assert httpx.get(url + path, headers=headers, timeout=60).status_code == 403, (path, headers)
        refused = httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60)
        assert refused.status_code == 403 and refused.json()["error"]["code"] == "forbidden"


def test_repeating_changes_nothing(production: Settings, digests: dict[int, str]) -> None:
    commit(production, WeightedVersion(version=1, digest=digests[1], weight=100))
    first = run(production)
    before = serve.status().applications
    assert run(production) == first
    after = serve.status().applications
    assert {name: each.last_deployed_time_s for name, each in before.items()} == {
        name: each.last_deployed_time_s for name, each in after.items()
    }


def test_shift_and_rollback_lose_no_request(production: Settings, digests: dict[int, str]) -> None:
    commit(production, WeightedVersion(version=1, digest=digests[1], weight=100))
    run(production)
    answered, failed, stop = [], [], threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                answered.extend(models(production))
            except openai.OpenAIError as error:
                failed.append(error)

    user = threading.Thread(target=load)
    user.start()
    try:
        commit(production, *halves(digests))
        run(production)
        assert models(production, 30) == {"overnight:1", "overnight:2"}
        commit(production, WeightedVersion(version=2, digest=digests[2], weight=100))
        run(production)
        assert models(production, 10) == {"overnight:2"}
        environment.rollback(production, "production", RELEASE, reason="a test")
        assert len(run(production).versions) == 2
    finally:
        stop.set()
        user.join()
    assert failed == [] and len(answered) > 20


BAD_STATES: tuple[tuple[str, type[Exception], str], ...] = (
    ("environment: production\nversions: [", ConfigError, "not valid YAML"),
    ("environment: production\nversions: []\n", ConfigError, "an empty state is not applied"),
    (
        f"environment: production\nversions:\n  - {{version: 9, digest: '{9:064x}', weight: 100}}\n",
        OvernightError,
        "version 9 of overnight is not registered; registered: 1, 2",
    ),
    (
        f"environment: production\nversions:\n  - {{version: 1, digest: '{9:064x}', weight: 100}}\n",
        ArtifactError,
        "version 1 is registered with digest",
    ),
)


def test_bad_states_leave_the_live_one(production: Settings, digests: dict[int, str], tmp_path: Path) -> None:
    good = commit(production, *halves(digests))
    run(production)
    for number, (text, error, message) in enumerate(BAD_STATES):
        by_hand(production, tmp_path / str(number), text)
        with pytest.raises(error, match=message):
            run(production)
        (entry,) = read_status(production).environments
        assert entry.stale and message in entry.reason and entry.live_commit == good
        assert models(production) <= {"overnight:1", "overnight:2"}
        environment.rollback(production, "production", RELEASE, reason="a bad state")
    assert not run(production).stale


def test_a_version_that_cannot_start_leaves_the_live_one(
    production: Settings, digests: dict[int, str], tmp_path: Path
) -> None:
    good = commit(production, *halves(digests))
    run(production)
    broken = write_random_model(tmp_path / "broken", 3, hidden_act="no engine knows it")
    registered = registry.register(production, broken, tags={}, metrics={})
    commit(production, WeightedVersion(version=registered.version, digest=registered.digest, weight=100))
    with pytest.raises(OvernightError, match="did not start, nothing was changed"):
        run(production)
    (entry,) = read_status(production).environments
    assert entry.stale and entry.live_commit == good
    assert models(production) <= {"overnight:1", "overnight:2"}
    environment.rollback(production, "production", RELEASE, reason="it does not start")
    assert not run(production).stale


def test_changes_by_hand_in_serving_are_undone(production: Settings, digests: dict[int, str]) -> None:
    commit(production, *halves(digests))
    run(production)
    applications = sorted(set(serve.status().applications) - {deploy.GATEWAY})
    assert len(applications) == 2
    serve.delete(applications[0])
    assert not run(production).stale
    assert models(production, 30) == {"overnight:1", "overnight:2"}


def test_git_away_serves_on_and_says_stale(production: Settings, digests: dict[int, str]) -> None:
    commit(production, *halves(digests))
    run(production)
    away = production.model_copy(update={"environments_url": "http://127.0.0.1:9/environments.git"})
    with pytest.raises(OvernightError, match="git ls-remote failed"):
        reconcile(away, "production", RELEASE, SERVING)
    (entry,) = read_status(production).environments
    assert entry.stale and entry.desired_commit is None and entry.live_commit is not None
    assert models(production) <= {"overnight:1", "overnight:2"}
    assert not run(production).stale


def test_the_status_holds_every_environment_by_its_name(settings: Settings) -> None:
    """Whatever the gateway serves, and as they were where Git does not answer; here no Ray does either."""
    first = promote(settings, version(1)).commit

    def text(name: str, *versions: WeightedVersion) -> bytes:
        return environment.render(EnvironmentFile(environment=name, versions=versions)).encode()

    head = push_tree(
        settings,
        staging=text("staging", version(2)),
        production=text("production", version(1)),
        fresh=text("fresh"),
        broken=b"[",
    )

    def entries(served: str, **changes: str) -> dict[str, EnvironmentStatus]:
        alone = settings.model_copy(update={"ray_address": "127.0.0.1:9", **changes})
        with pytest.raises(ConfigError, match="nothing answers there"):
            reconcile(alone, served, RELEASE, SERVING)
        status = read_status(settings)
        assert status is not None and status.gateway_url is None
        return {each.name: each for each in status.environments}

    found = entries("production")
    assert [*found] == ["broken", "fresh", "production", "staging"]
    assert {name: each.desired_commit for name, each in found.items()} == {
        "broken": None,
        "fresh": head,
        "production": first,
        "staging": head,
    }
    assert "broken.yaml" in (found["broken"].reason or "")
    assert (found["fresh"].stale, found["fresh"].reason) == (False, None)
    assert (found["staging"].stale, found["staging"].reason) == (True, "the gateway here serves production")
    assert found["production"].stale and "nothing answers there" in (found["production"].reason or "")
    assert entries("staging")["production"].reason == "the gateway here serves staging"
    away = entries("production", environments_url="http://127.0.0.1:9/environments.git")
    assert [*away] == [*found] and "git ls-remote failed" in (away["production"].reason or "")
    assert (away["fresh"].stale, away["fresh"].reason, away["fresh"].desired_commit) == (True, "Git did not say", head)
