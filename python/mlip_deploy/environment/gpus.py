"""The GPUs of this machine, in words."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mlip_deploy.errors import MLIPError


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


def run_time_compiler() -> Path:
    """NVIDIA's compiler library, of the package nvidia-cuda-nvrtc: a CUDA build of torch brings it.

    Raises
    ------
    MLIPError
        Where it is not installed.
    """
    package = importlib.util.find_spec("nvidia")
    folders = package.submodule_search_locations if package else None
    for folder in folders or []:
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return path
    raise MLIPError("NVIDIA's run-time compiler is not installed. Type: pip install nvidia-cuda-nvrtc")
