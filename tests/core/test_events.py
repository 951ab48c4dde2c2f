"""Events are whole lines, from any number of writers, read from where one left off."""

import threading
from pathlib import Path

from components.core.config import Settings
from components.core.events import Events, read_events


def test_read_from_where_one_left_off(tmp_path: Path) -> None:
    events = Events("clean", Settings(state=tmp_path, cycle="c"))
    events.metric("rows", 3)
    first, offset = read_events(events.path)
    events.note("two\nlines")
    second, _ = read_events(events.path, offset)
    assert [each["kind"] for each in first + second] == ["metric", "note"]
    assert events.path == tmp_path / "events" / "c" / "clean.jsonl"


def test_half_a_line_waits_for_its_rest(tmp_path: Path) -> None:
    events = Events("clean", Settings(state=tmp_path))
    events.metric("rows", 3)
    with events.path.open("ab") as target:
        target.write(b'{"time": 1, "ki')
    found, offset = read_events(events.path)
    assert len(found) == 1
    with events.path.open("ab") as target:
        target.write(b'nd": "note", "text": ""}\n')
    assert [each["kind"] for each in read_events(events.path, offset)[0]] == ["note"]


def test_writers_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    events = Events("clean", Settings(state=tmp_path))

    def write(name: str) -> None:
        for step in range(200):
            events.metric(name * 50, step, step)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, _ = read_events(events.path)
    assert len(found) == 800
    assert sorted(each["step"] for each in found if each["name"][0] == "a") == list(range(200))


def test_no_events_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_events(tmp_path / "absent.jsonl", 7) == ([], 7)
