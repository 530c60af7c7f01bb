"""NequIP's global settings for as long as its code runs, and the process's own afterwards.

NequIP sets torch's default type, TorchScript's fusion, e3nn's options, options of torch's compiler, seeds and
environment variables (`nequip.utils.global_state`), once for the whole process. Another family exported
after it would find them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from mlip_deploy.exporters.settings import default_dtype, quiet

COMPILER = ("capture_dynamic_output_shape_ops", "capture_scalar_outputs")


@contextlib.contextmanager
def nequip_settings() -> Iterator[None]:
    """Everything that `set_global_state` sets on a CPU is put back in the end, whatever happens in between."""
    environment = dict(os.environ)
    import e3nn
    import torch._dynamo
    from lightning.pytorch.utilities.seed import isolate_rng
    from nequip.utils import global_state

    options = e3nn.get_optimization_defaults()
    sharing = torch.multiprocessing.get_sharing_strategy()  # type: ignore[no-untyped-call]
    fusion = torch.jit.set_fusion_strategy([("DYNAMIC", 10)])
    initialized = global_state._GLOBAL_STATE_INITIALIZED
    compiler = torch._dynamo.config.patch(**{name: getattr(torch._dynamo.config, name) for name in COMPILER})
    try:
        with isolate_rng(), default_dtype(torch.get_default_dtype()), compiler, quiet():
            global_state._GLOBAL_STATE_INITIALIZED = False  # it was put back since the last time
            global_state.set_global_state()
            yield
    finally:
        global_state._GLOBAL_STATE_INITIALIZED = initialized
        torch.jit.set_fusion_strategy(fusion)
        torch.multiprocessing.set_sharing_strategy(sharing)  # type: ignore[no-untyped-call]
        e3nn.set_optimization_defaults(**options)
        os.environ.clear()
        os.environ.update(environment)
