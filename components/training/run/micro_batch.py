"""The micro-batch that memory leaves a run, where a worker was killed for it and could not halve its own. No torch.

Reads, writes  <run>/micro_batch.json, which every later attempt at the run starts with
An error of the allocator never comes here: the trainer halves and takes the step again. The global batch and the order
stay; sums are taken in smaller parts, so the bits are those of a run with that micro-batch, which `decided` records.
Covers: Ray's memory monitor, on any node, by its words; the kernel, on the driver's node, by its count of such kills.
Not covered: the kernel's kills on other nodes; one of another process here, just then, counts as ours.
"""

from pathlib import Path

from components.core.artifact import write_file

FILE = "micro_batch.json"
KERNEL = Path("/proc/vmstat")
RAY_SAYS = "running low on memory"


def kernel_kills(counters: Path) -> int:
    """How many processes of this machine the kernel has killed for their memory; 0 where it does not say."""
    lines = counters.read_text().splitlines() if counters.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def samples_of(run: Path, planned: int) -> int:
    """Samples of a micro-batch: as planned, or what was left of them."""
    path = run / FILE
    return min(planned, int(path.read_bytes())) if path.exists() else planned


def halve(run: Path, planned: int) -> str | None:
    """Halve the micro-batch of the attempts to come. The note; None where one sample is left."""
    samples = samples_of(run, planned)
    if samples == 1:
        return None
    write_file(run / FILE, str(-(-samples // 2)).encode())
    return f"killed for want of memory with micro-batches of {samples} samples, going on with {-(-samples // 2)}"
