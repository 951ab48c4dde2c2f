"""Two gloo workers train as one does."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import torch

from components.training import checkpoint
from tests.training.runs import run_small

WORKER = """
import sys, torch
from pathlib import Path
from components.training.trainer import World
from tests.training.runs import recipe, run_small
rank, size, place, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=size)
outcome, _ = run_small(out, steps=12, how=recipe(micro=2), world=World(rank=rank, size=size))
print(outcome.tokens)
torch.distributed.destroy_process_group()
"""


def test_two_workers_read_the_batch_of_one_and_agree(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, str(rank), "2", place, str(tmp_path / "two")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    answers = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert [int(answer) for answer in answers] == [12 * 8 * 32] * 2
    _, one = run_small(tmp_path / "one", steps=12)
    two = checkpoint.Checkpoint(tmp_path / "two" / "step-00000012").weights()
    for name, each in one.items():
        torch.testing.assert_close(two[name], each, rtol=0.05, atol=0.02)
    histories = [
        json.loads((tmp_path / each / "step-00000012" / checkpoint.STATE).read_text())["history"]
        for each in ("one", "two")
    ]
    assert all(abs(a["loss"] - b["loss"]) < 0.01 for a, b in zip(*histories, strict=True))
