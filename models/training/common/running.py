"""What every training here needs: gradients averaged over processes, averaged weights, checkpoints, a pause."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def join_processes(rank: int, world_size: int, port: int) -> None:
    """Let the processes of a training meet on the loopback."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", rank=rank, world_size=world_size)


def process_age() -> float:
    """Return the seconds since this process was started, its imports included; 0 where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
    return age if 0 <= age < 600 else 0.0  # some sandboxes count from another start


def wait_while_paused(pause_file: Path | None) -> None:
    """Sleep as long as the file exists: it is created by a person who needs the machine."""
    while pause_file is not None and pause_file.exists():
        time.sleep(0.5)


def device_named(name: str) -> torch.device:
    """Return the device; raises `ValueError` in a line where there is none."""
    # The other way to ask starts CUDA, after which processes can no longer be forked safely.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"there is no CUDA device here (PyTorch {torch.__version__}); --device cpu trains on the CPU")
    return torch.device(name)


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor: the same memory on the CPU; on CUDA a copy that does not wait for the GPU.

    The array may change afterwards only if the device is CUDA.
    """
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def same_for_all(value: float) -> float:
    """Return the first process's value in all of them."""
    values = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(values, 0)
    return float(values)


def average_gradients(model: nn.Module) -> None:
    """Replace the gradients by their mean over all processes, as one message."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    together = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    first = 0
    for gradient in gradients:
        gradient.copy_(together[first : first + gradient.numel()].view_as(gradient))
        first += gradient.numel()


class WeightAverage:
    """The exponential average of a network's parameters and running statistics."""

    def __init__(self, state: dict[str, Tensor], keep: float, updates: int = 0) -> None:
        """Start from a state.

        Args:
            state: the state of a network, or of the average that a run left after `updates` steps.
            keep: the share of the old average that an update keeps.
            updates: 0 for a network's own state.
        """
        self.state = {name: value.clone() for name, value in state.items()}
        self._keep, self._updates = keep, updates

    def update(self, model: nn.Module) -> None:
        """Take one step's weights in; the first steps count for more, so that a start is soon forgotten."""
        self._updates += 1
        keep = min(self._keep, (self._updates + 1) / (self._updates + 10))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - keep)
            else:
                self.state[name].copy_(value)


def build_optimizer(model: nn.Module, rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Build AdamW with weight decay on kernels and matrices only."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate)


def load_network(
    path: Path, build: Callable[[dict[str, Any]], Network], weights: str
) -> tuple[Network, dict[str, Any]]:
    """Build the network that a checkpoint describes; return the checkpoint too.

    Args:
        path: the checkpoint.
        build: makes a network of the shape that the checkpoint describes.
        weights: `averaged`, or `model` for those that training goes on from.

    Raises:
        OSError: there is no such file.
        ValueError: it is no checkpoint, or one of another network.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        model = build(checkpoint["network"])
        model.load_state_dict(checkpoint[weights])
    except OSError:
        raise
    except Exception as error:  # the unpickler raises whatever it stumbles over
        raise ValueError(f"{path} is no checkpoint of this network: {type(error).__name__}: {error}") from error
    return model, checkpoint


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that a crash leaves the old one or the new one whole."""
    torch.save(content, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
