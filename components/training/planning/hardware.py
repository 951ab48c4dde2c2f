"""This machine in a few lines of JSON: `python -m components.training.planning.hardware --out FILE`.

Another machine plans anew, so the file is a dependency of `plan`: the same machine must always write the same bytes,
and nothing is written when nothing changed. From /proc and nvidia-smi; no torch.
Not covered: load, clock speed, other processes - the probe measures what they leave.
"""

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from components.core.artifact import write_file

# Instructions that decide which precision is fast.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
GIB = 2**30


def describe(proc: Path = Path("/proc")) -> dict[str, Any]:
    """CPU model, instruction sets, cores that this process may use, memory in whole GiB, GPUs."""
    values = [line.partition(":") for line in (proc / "cpuinfo").read_text().splitlines()]
    cpu = {key.strip(): value.strip() for key, _, value in values if key.strip()}
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    kibibytes = next(
        int(line.split()[1]) for line in (proc / "meminfo").read_text().splitlines() if line.startswith("MemTotal:")
    )
    return {
        "cpu": cpu.get("model name", cpu.get("CPU part", "unknown")),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(kibibytes * 1024 / GIB),
        "gpus": gpus(),
    }


def gpus() -> list[dict[str, Any]]:
    """Name and memory in whole GiB of each GPU; none when there is no nvidia-smi, or no driver behind it."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    if answer.returncode:
        return []
    rows = [line.rpartition(",") for line in answer.stdout.splitlines() if line.strip()]
    return [{"name": name.strip(), "memory_gib": round(int(mebibytes) / 1024)} for name, _, mebibytes in rows]


def write(out: Path) -> bool:
    """Write the description unless the file already says just that. True when it was written."""
    content = (json.dumps(describe(), indent=1, sort_keys=True) + "\n").encode()
    if out.exists() and out.read_bytes() == content:
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, content)
    return True


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="describe this machine")
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
