"""Settings of torch and of Python while a framework builds or scripts a model; each is put back afterwards."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from types import FunctionType

import torch


@contextlib.contextmanager
def torchs_own_functions() -> Iterator[None]:
    """While TorchScript compiles: torch_geometric, which SevenNet imports, puts functions of its own in the places of
    `torch.index_select` and `torch.select`, and TorchScript knows torch's own alone."""
    replaced = {name: function for name, function in vars(torch).items() if _is_of_another_package(name, function)}
    for name in replaced:
        setattr(torch, name, getattr(torch._C._VariableFunctions, name))
    try:
        yield
    finally:
        for name, function in replaced.items():
            setattr(torch, name, function)


def _is_of_another_package(name: str, function: object) -> bool:
    return (
        isinstance(function, FunctionType)
        and hasattr(torch._C._VariableFunctions, name)
        and function.__module__.split(".")[0] != "torch"
    )


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Constants that a framework creates while it builds a model follow torch's default type."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the frameworks' deprecation and accelerator warnings, which a user of the artifact cannot act on.

    torch 2.13 hides the deprecation of torch.jit from users by its category, torch 2.15 shows it at every call.
    Filters, and whether warnings go to the log (`logging.captureWarnings`), are afterwards as they were.
    """
    log = vars(logging)
    captured = log["_warnings_showwarning"]  # the half of captureWarnings that catch_warnings does not put back
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log["_warnings_showwarning"] = captured


@contextlib.contextmanager
def no_log() -> Iterator[None]:
    """Silence what a framework logs, up to warnings, of what it was told to do."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(disabled)
