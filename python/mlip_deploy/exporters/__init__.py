"""Export: a checkpoint of a training framework becomes an artifact. One adapter per family, one shared wrapper.

`export_module` writes an nn.Module of your own. It is imported when it is asked for: this package imports no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlip_deploy.exporters.module import export_module

__all__ = ["export_module"]


def __getattr__(name: str) -> Any:
    if name == "export_module":
        from mlip_deploy.exporters.module import export_module

        return export_module
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
