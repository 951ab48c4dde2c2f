"""Several workers of one run: who they are, what they agree on, and how a model is divided among them. Plain torch.

    data      every worker holds the model in its compute precision (DistributedDataParallel); masters and momenta are
              divided (ZeRO-1): a worker updates its share and the others take over what it made of it
    sharded   every worker holds its rows of every parameter, in float32 (FSDP2, fully_shard), and gathers a block when
              it computes it; masters and momenta are divided as above

In both a worker owns whole matrices of each shape, because Muon orthogonalises whole ones (as Keller Jordan's and
nanochat's DistMuon), and rows or numbers of what AdamW updates. The optimizer is the same for all; what differs is how
the gradients of an owner's share reach it and how its masters reach the parameters: `Share`, `Replicated`, `Sharded`.
Blocks are gathered again for the backward pass; embeddings, which it begins with, stay.
Covers: gloo and NCCL, one dimension of division.  Not covered: hybrid meshes, tensor and pipeline parallelism; no GPU
figure was measured. Sharded parameters and their masters are both float32: 4 bytes a parameter and worker share more
than if the matrices' masters were the parameters, for one update rule in every mode.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

Parallel = Literal["data", "sharded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Which of how many workers this is, and where it computes."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"


def agreed(value: float, world: World) -> float:
    """Worker 0's number on every worker, so that all take the same decisions."""
    if world.size == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=world.device)
    torch.distributed.broadcast(shared, src=0)
    return float(shared)


def summed(value: Tensor, world: World) -> Tensor:
    """The sum over all workers, the same bits on each."""
    if world.size > 1:
        torch.distributed.all_reduce(value)
    return value


class Share:
    """One worker's share of parameters that are laid end to end: [start, end) of all their numbers. Alone, all.

    unit    how many numbers must not be parted: those of a matrix for Muon, of a row, or 1
    """

    def __init__(self, parameters: Sequence[nn.Parameter], unit: int, world: World) -> None:
        self.parameters = list(parameters)
        self.world = world
        self.sizes = [each.numel() for each in self.parameters]
        self.offsets = list(accumulate(self.sizes, initial=0))
        self.total = self.offsets.pop()
        self.length = -(-self.total // unit // world.size) * unit
        self.start, self.end = self.range_of(world.rank)

    def range_of(self, rank: int) -> tuple[int, int]:
        """What a worker owns. The last ones own less or nothing when units are few."""
        return min(rank * self.length, self.total), min((rank + 1) * self.length, self.total)

    def collect(self, tensors: Sequence[Tensor]) -> Tensor:
        """This worker's share of tensors that are like the parameters, in float32, shape (end - start,)."""
        return torch.cat([each.reshape(-1) for each in tensors]).float()

    def publish(self, owned: Tensor) -> None:
        """Set the parameters, in their precision, to what their owners make of them. owned: shape (end - start,)."""
        self._set(owned)

    def _set(self, every: Tensor) -> None:
        torch._foreach_copy_([each.detach().view(-1) for each in self.parameters], list(torch.split(every, self.sizes)))


class Replicated(Share):
    """Every worker holds all parameters and, after DistributedDataParallel, the same gradients."""

    def collect(self, tensors: Sequence[Tensor]) -> Tensor:
        """No communication: the gradients are here."""
        parts = [each.new_zeros(0) for each in tensors[:1]]
        for tensor, offset, size in zip(tensors, self.offsets, self.sizes, strict=True):
            begin, end = max(self.start, offset), min(self.end, offset + size)
            if begin < end:
                parts.append(tensor.reshape(-1)[begin - offset : end - offset])
        return torch.cat(parts).float()

    def publish(self, owned: Tensor) -> None:
        """One gathering of all shares, in the parameters' precision."""
        mine = self.parameters[0].new_zeros(self.length)
        mine[: len(owned)] = owned
        every = mine.new_empty(self.length * self.world.size)
        torch.distributed.all_gather(list(torch.split(every, self.length)), mine)
        self._set(every[: self.total])


@dataclass(frozen=True, slots=True)
class Segment:
    """Numbers of one parameter that one worker holds and one owns, and where they lie with each."""

    parameter: int
    held_at: int
    owned_at: int
    length: int


class Sharded(Share):
    """Every worker holds its rows of each parameter, as FSDP2 cuts them, and gradients of the same rows."""

    def segments(self, holder: int, owner: int) -> list[Segment]:
        """What lies with `holder` of what `owner` owns."""
        segments = []
        first, last = self.range_of(owner)
        for number, (parameter, offset) in enumerate(zip(self.parameters, self.offsets, strict=True)):
            rows, row = parameter.shape[0], parameter.numel() // parameter.shape[0]
            held = -(-rows // self.world.size)
            start = offset + min(holder * held, rows) * row
            stop = offset + min((holder + 1) * held, rows) * row
            begin, end = max(start, first), min(stop, last)
            if begin < end:
                segments.append(Segment(number, begin - start, begin - first, end - begin))
        return segments

    @cached_property
    def held(self) -> list[list[Segment]]:
        """What this worker holds, by owner."""
        return [self.segments(self.world.rank, owner) for owner in range(self.world.size)]

    @cached_property
    def owned(self) -> list[list[Segment]]:
        """What this worker owns, by holder."""
        return [self.segments(holder, self.world.rank) for holder in range(self.world.size)]

    @cached_property
    def local(self) -> bool:
        """Whether everybody owns what it holds: a single parameter whose unit is a row."""
        workers = range(self.world.size)
        return not any(self.segments(holder, owner) for holder in workers for owner in workers if holder != owner)

    def collect(self, tensors: Sequence[Tensor]) -> Tensor:
        """Holders send rows to owners."""
        result = torch.empty(self.end - self.start, dtype=torch.float32, device=self.world.device)
        received = self._exchange(self._of_held([_local(each) for each in tensors]), self.held, self.owned)
        _copy(self._of_owned(result), received)
        return result

    def publish(self, owned: Tensor) -> None:
        """Owners send rows to holders."""
        received = self._exchange(self._of_owned(owned), self.owned, self.held)
        _copy(self._of_held([_local(each) for each in self.parameters]), received)

    def _of_held(self, tensors: list[Tensor]) -> list[Tensor]:
        every = [each for segments in self.held for each in segments]
        return [tensors[each.parameter][each.held_at : each.held_at + each.length] for each in every]

    def _of_owned(self, owned: Tensor) -> list[Tensor]:
        return [owned[each.owned_at : each.owned_at + each.length] for segments in self.owned for each in segments]

    def _exchange(self, sent: list[Tensor], out: list[list[Segment]], back: list[list[Segment]]) -> list[Tensor]:
        if self.local:
            return sent
        lengths = [each.length for segments in back for each in segments]
        send_buffer = torch.cat(sent) if sent else torch.empty(0, device=self.world.device)
        receive_buffer = send_buffer.new_empty(sum(lengths))
        sizes = [[sum(each.length for each in segments) for segments in way] for way in (back, out)]
        torch.distributed.all_to_all_single(
            receive_buffer, send_buffer, output_split_sizes=sizes[0], input_split_sizes=sizes[1]
        )
        return list(torch.split(receive_buffer, lengths))


def _copy(to: list[Tensor], sources: list[Tensor]) -> None:
    if to:  # a worker may own nothing, or hold nothing
        torch._foreach_copy_(to, sources)


def _local(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DTensor), "a parameter was not sharded"
    local: Tensor = tensor.to_local()
    return local.detach().view(-1)


def share_of(world: World, parallel: Parallel) -> Callable[[Sequence[nn.Parameter], int], Share]:
    """How an optimizer's parameters are divided: takes parameters and unit."""
    kind = Share if world.size == 1 else Sharded if parallel == "sharded" else Replicated
    return lambda parameters, unit: kind(parameters, unit, world)


def is_sharded(world: World, parallel: Parallel) -> bool:
    """A lone worker has nobody to share with."""
    return parallel == "sharded" and world.size > 1


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated layers of any transformers model, which are checkpointed, sharded and compiled one by one."""
    return [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]


def shard(root: nn.Module, world: World, dtype: torch.dtype) -> None:
    """Cut every parameter below `root` into rows, in place: kept and reduced in float32, computed with in `dtype`."""
    mesh = init_device_mesh(world.device.partition(":")[0], (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in blocks_of(root):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # What is no block's, embeddings and last norm: the backward pass begins with it, so it is kept until then.
    fully_shard(root, mesh=mesh, mp_policy=policy, reshard_after_forward=False)


@contextmanager
def reducing(loss: Any, last: bool) -> Iterator[None]:
    """Exchange gradients in this backward pass if it is the last of a step; until then they add up where they are."""
    if isinstance(loss, FSDPModule):
        loss.set_requires_gradient_sync(last)
    with loss.no_sync() if isinstance(loss, DistributedDataParallel) and not last else nullcontext():
        yield


@contextmanager
def whole(root: nn.Module) -> Iterator[None]:
    """Let the model below `root` be called, by all workers together, otherwise than through `root`."""
    sharded = isinstance(root, FSDPModule)
    if sharded:
        root.unshard()  # type: ignore[operator]  # narrowed above
    try:
        yield
    finally:
        if sharded:
            root.reshard()  # type: ignore[operator]
