"""The GPUs of this machine, in words."""

from __future__ import annotations

from pathlib import Path


def driver() -> str | None:
    """Release of NVIDIA's driver, such as "580.82.07", where there is one."""
    version = Path("/sys/module/nvidia/version")
    return version.read_text().strip() if version.exists() else None


def gpus() -> list[str]:
    """Such as "cuda:0 NVIDIA H100 (85 GB, compute capability 9.0, CUDA 13.0)"."""
    import torch

    found = []
    for k in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(k)
        found.append(
            f"cuda:{k} {card.name} ({1e-9 * card.total_memory:.0f} GB, compute capability {card.major}.{card.minor}, "
            f"CUDA {torch.version.cuda})"
        )
    return found
