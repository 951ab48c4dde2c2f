"""Hardware in figures that a plan needs, for machines that are not here. Standard library only.

Peaks are dense bfloat16 of NVIDIA's data sheets (H100 SXM, H200 SXM, A100 SXM 80 GB, L40S); a core's is measured, 375
GFLOP/s of a 2048-sided product on one of two cores with AVX512-BF16. Prices are rounded on-demand list prices in US
dollars an hour, for comparison: plan.economics.price_per_hour says what yours are.
`utilisation` is the share of the peak that training reaches (model FLOPs): 0.40 on GPUs, an assumption between the
0.38-0.43 of Llama 3 405B (arXiv:2407.21783, table 4) and the 0.5 and more of small dense models; 0.2 on cores, measured
with 1.3M parameters (24,000 tokens/s on two). A machine that is here is probed instead.
Not covered: networks between hosts - eight GPUs of one host are counted as eight times one.
"""

import difflib
import re
from dataclasses import dataclass, replace
from typing import Any

from components.core.errors import ConfigError

GIB = 2**30
GPU_UTILISATION = 0.40
CORE_UTILISATION = 0.20


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One GPU, or one core of a CPU. FLOP/s, bytes, bytes/s, dollars an hour."""

    name: str
    device: str
    flops: float
    memory_bytes: float
    bandwidth: float
    price_per_hour: float
    utilisation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """So many of one kind. `measured`: speeds come from a probe, not from this table."""

    accelerator: Accelerator
    count: int
    measured: bool = False

    @property
    def name(self) -> str:
        """As --hardware has it."""
        return self.accelerator.name + (f"x{self.count}" if self.count > 1 else "")

    @property
    def price_per_hour(self) -> float:
        """Of all of it."""
        return self.accelerator.price_per_hour * self.count

    @property
    def memory_bytes(self) -> float:
        """What one worker may use: a GPU's own, or all of the cores' together."""
        return self.accelerator.memory_bytes * (1 if self.accelerator.device == "cuda" else self.count)

    @property
    def achieved_flops(self) -> float:
        """FLOP/s of training, all together."""
        return self.accelerator.flops * self.accelerator.utilisation * self.count


def _gpu(name: str, flops: float, gigabytes: float, bandwidth: float, price: float) -> Accelerator:
    return Accelerator(
        name=name,
        device="cuda",
        flops=flops,
        memory_bytes=gigabytes * 1e9,
        bandwidth=bandwidth,
        price_per_hour=price,
        utilisation=GPU_UTILISATION,
    )


TABLE = {
    each.name: each
    for each in (
        _gpu("h100", 989e12, 80, 3.35e12, 3.0),
        _gpu("h200", 989e12, 141, 4.8e12, 3.8),
        _gpu("a100", 312e12, 80, 2.04e12, 1.8),
        _gpu("l40s", 362e12, 48, 0.864e12, 0.9),
        Accelerator(
            name="cpu",
            device="cpu",
            flops=375e9,
            memory_bytes=4 * GIB,
            bandwidth=10e9,
            price_per_hour=0.05,
            utilisation=CORE_UTILISATION,
        ),
    )
}


def machine_of(text: str) -> Machine:
    """`h100x8`, `h200`, `cpux2` (cores) as a machine of the table. Raises ConfigError with the nearest names."""
    match = re.fullmatch(r"([a-z0-9]+?)(?:x([1-9]\d{0,4}))?", text.lower())
    if match is None or match[1] not in TABLE:
        stem = re.sub(r"x\d+$", "", text.lower())
        near = difflib.get_close_matches(stem, TABLE, n=2, cutoff=0.3) or sorted(TABLE)
        raise ConfigError(
            f"--hardware {text}: not in the table; nearest: {', '.join(near)}; needed a name and a number, as h100x8"
        )
    return Machine(accelerator=TABLE[match[1]], count=int(match[2] or 1))


def machine_here(description: dict[str, Any], device: str, num_workers: int) -> Machine:
    """The machine of .overnight/hardware.json: its memory and kind; its speed is the probe's to say.

    Raises ConfigError for plan.device cuda without enough GPUs.
    """
    gpus = list(description.get("gpus", []))
    if device == "cuda":
        if len(gpus) < num_workers:
            raise ConfigError(
                f"plan.device is cuda with {num_workers} workers and this machine has {len(gpus)} GPUs; "
                "set plan.device to cpu, fewer plan.num_workers, or plan for another machine by --hardware h100x8"
            )
        name = str(gpus[0]["name"]).lower()
        known = next((each for key, each in TABLE.items() if key in name), TABLE["a100"])
        mine = replace(known, memory_bytes=float(gpus[0]["memory_gib"]) * GIB)
        return Machine(accelerator=mine, count=num_workers, measured=True)
    cores = int(description.get("cores", 1))
    memory = float(description.get("memory_gib", 4 * cores)) * GIB / cores
    return Machine(accelerator=replace(TABLE["cpu"], memory_bytes=memory), count=cores, measured=True)
