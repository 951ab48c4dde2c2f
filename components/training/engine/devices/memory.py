"""What a process has used of its memory, and whether an error says that there was not enough. Plain torch."""

import resource

import torch

# What PyTorch's and the compiler's allocators on a CPU say; CUDA's has a class of its own.
CPU_MESSAGES = ("not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in CPU_MESSAGES)


def peak_bytes(device: str) -> int:
    """The most memory held so far: by tensors on a GPU, by this process (its code and libraries included) on a CPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
