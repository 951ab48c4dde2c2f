"""The endpoint as Prometheus sees it: over HTTP, while events arrive."""

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
import yaml

from components.core.config import Settings
from components.core.events import Events
from components.core.graph.closure import ROOT
from components.machine.services import free_port
from dashboards import metrics


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    made = Settings(state=tmp_path, cycle="20261121-000000-aaaa", metrics_port=free_port("127.0.0.1"))
    options = uvicorn.Config(metrics.application(made), host=made.host, port=made.metrics_port, log_level="error")
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    yield made
    server.should_exit = True
    thread.join()


def scrape(settings: Settings) -> dict[str, float]:
    """Every sample by its name and labels."""
    answer = httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=10)
    assert answer.status_code == 200 and "text/plain" in answer.headers["content-type"]
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_gauges_follow_the_events(settings: Settings) -> None:
    assert scrape(settings) == {}
    cycle, stage = Events("cycle", settings), Events("pretrain", settings)
    now = time.time()
    cycle.write("started", began_at=now - 100, deadline_seconds=900.0)
    cycle.metric("planned_seconds/pretrain", 500.0)
    stage.write("started")
    stage.metrics({"loss": 3.5, "tokens_per_second": 26_000.0}, step=10)
    stage.progress(50, 200, "steps")
    one = scrape(settings)
    assert one['overnight_cycle_info{cycle="20261121-000000-aaaa"}'] == 1
    assert one["overnight_pretrain_loss"] == 3.5 and one["overnight_pretrain_tokens_per_second"] == 26_000
    assert one['overnight_stage_progress_ratio{stage="pretrain"}'] == 0.25
    assert one['overnight_stage_planned_seconds{stage="pretrain"}'] == 500
    assert one['overnight_stage_running{stage="pretrain"}'] == one["overnight_cycle_running"] == 1
    assert 790 < one["overnight_cycle_left_seconds"] <= 800
    assert one["overnight_cycle_deadline_timestamp_seconds"] == pytest.approx(now + 800)
    with stage.path.open("a") as half:
        half.write('{"time": 1.0, "kind": "metric", "na')  # a line that is being written
    stage_again = scrape(settings)
    assert stage_again["overnight_pretrain_loss"] == 3.5
    with stage.path.open("a") as rest:
        rest.write('me": "loss", "value": 2.5, "step": 20}\n')
    stage.write("finished", seconds=60.0, digest="", inputs=[], statistics={})
    cycle.write("finished", seconds=160.0, digest="", inputs=[], statistics={})
    two = scrape(settings)
    assert two["overnight_pretrain_loss"] == 2.5
    assert two['overnight_stage_running{stage="pretrain"}'] == two["overnight_cycle_running"] == 0
    assert two["overnight_cycle_work_ratio"] == pytest.approx(0.6, abs=0.05)
    later = settings.model_copy(update={"cycle": "20261121-000100-bbbb"})
    Events("ingest", later).write("started")
    three = scrape(settings)
    assert "overnight_pretrain_loss" not in three and three['overnight_stage_running{stage="ingest"}'] == 1


def test_the_dashboard_and_the_scrape_config_name_what_is_served(settings: Settings) -> None:
    config = yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text())
    targets = [
        target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]
    assert f"127.0.0.1:{Settings().metrics_port}" in targets and f"127.0.0.1:{Settings().gateway_port}" in targets
    dashboard = json.loads((ROOT / "dashboards" / "grafana" / "cycle.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    by_source = re.compile("overnight_pretrain_loss_.+")
    assert by_source.pattern in asked
    asked = asked.replace(by_source.pattern, "")
    Events("pretrain", settings).metrics({"loss": 2.0, "loss_code": 1.5, "loss_notes.old": 2.5}, step=10)
    assert {each for each in scrape(settings) if by_source.fullmatch(each)} == {
        "overnight_pretrain_loss_code",
        "overnight_pretrain_loss_notes_old",
    }
    names = set(re.findall(r"overnight_(?:stage|cycle)_\w+", asked))
    served = {f"overnight_stage_{each}" for each in metrics.STAGE_GAUGES} | {
        f"overnight_cycle_{each}" for each in metrics.CYCLE_GAUGES
    }
    assert names and names <= served | {"overnight_cycle_info"}
    source = (ROOT / "components" / "training" / "run" / "workers.py").read_text()  # importing it takes seconds
    reported = set(re.findall(r'"(\w+)"', source.partition("METRICS = (")[2].partition(")")[0]))
    assert set(re.findall(r"overnight_pretrain_(\w+)", asked)) <= reported


def test_a_page_of_another_origin_reads_nothing(settings: Settings) -> None:
    Events("pretrain", settings).metric("loss", 3.5)
    url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        answer = httpx.get(url, headers=headers, timeout=10)
        assert answer.status_code == 403 and "loss" not in answer.text
