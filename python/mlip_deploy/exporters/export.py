"""`mlip_deploy.export`: a model of a training framework becomes one file.

torch and the framework are imported when everything that can be wrong without them has been looked at.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from mlip_deploy.artifact.contract import BackendKind, Dtype, EnergyFrame
from mlip_deploy.artifact.reader import SUFFIXES, Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, Radial
from mlip_deploy.files import require_file
from mlip_deploy.progress import Progress, silent

Target = Literal["artifact", "torchforce"]
TORCHFORCE_SUFFIX = ".torchforce.pt"


def export(
    family: str,
    source: str | Path,
    output: str | Path,
    *,
    dtype: Dtype = "float32",
    elements: Sequence[str] = (),
    modal: str | None = None,
    head: str | None = None,
    member: int | None = None,
    fuse: bool = True,
    radial: Radial = "auto",
    trust_checkpoint: bool = False,
    backend: BackendKind = "torchscript",
    device: str = "cpu",
    target: Target = "artifact",
    energy_frame: EnergyFrame | None = None,
    base: str | Path | None = None,
    fix: Mapping[str, float | int | str] | None = None,
    progress: Progress = silent,
    note: Progress = silent,
) -> Path:
    """Write a model of a training framework as one file, with its contract and reference frames.

    Parameters
    ----------
    family
        Framework that the model comes from, such as "sevennet", "mace" or "fairchem"; `mlip export --list` has them
        all. For a module of your own, see `export_module`.
    source
        Name of a published model, such as "7net-0", or a checkpoint file.
    output
        File to write: `*.mlip.pt`, `*.mlip.pt2` for the back end aotinductor, `*.torchforce.pt` for the target
        torchforce. It appears when it is complete; a failure leaves an older file as it was.
    dtype
        Precision in which the file computes: "float32" or "float64". Its reference frames are always in float64.
    elements
        Chemical symbols to keep; all of the model's when empty.
    modal
        Training modality, for checkpoints that have several.
    head
        Read-out head, for models that have several.
    member
        Member of an ensemble to export, counted from 0; by default the mean of all members.
    fuse
        Replace the framework's own layers by mlip's fused operators, which are faster.
    radial
        With `fuse`: "table" replaces the radial networks by tables; "exact" keeps the networks, which are slower.
        "auto" is "table" in float32, where the difference is below the rounding, and "exact" in float64, where it is
        not.
    trust_checkpoint
        Load a checkpoint file that is a pickle, which runs the code in it.
    backend
        "torchscript", or "aotinductor" for code compiled for this torch and processor.
    device
        Of the back end aotinductor: what the code is compiled for, "cpu" or "cuda", which needs a GPU like the one that
        will run it. Other files run on both.
    target
        "artifact", or "torchforce" for a file that PyPI's openmmtorch runs without mlip-deploy.
    energy_frame
        Functional, Hubbard U, corrections and dispersion of the training energies, for a checkpoint of your own.
    base
        Model that the checkpoint was fine-tuned from: a name of the same family, a checkpoint file or an artifact. The
        file gets the energy frame of this model.
    fix
        Values of the model's settings, such as {"charge": 0}, that the file fixes. The others are given when it runs.
        UMA needs {"composition": "NaCl"}: the file is then for systems of this composition, of any size.
    progress
        Called with a line of text before each piece of work.
    note
        Called with a line of text on each choice that was made for this model, such as tables in place of its radial
        networks.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    MLIPError
        For a family that is not known or not installed, a source that is unknown or an artifact already, an option or
        a setting that does not fit the model, a file that cannot be written, and what the back end cannot do with this
        model.
    """
    output = Path(output)
    for name, value, known in (
        ("family", family, tuple(FAMILIES)),
        ("--dtype", dtype, get_args(Dtype)),
        ("--radial", radial, get_args(Radial)),
        ("--backend", backend, tuple(SUFFIXES)),
        ("--target", target, get_args(Target)),
    ):
        if value not in known:
            raise MLIPError(f"{name}: '{value}' is not one of {', '.join(known)}")
    if target == "torchforce" and backend != "torchscript":
        raise MLIPError(f"--target torchforce is TorchScript. Leave out --backend {backend}")
    check_device(device, backend)
    suffix = TORCHFORCE_SUFFIX if target == "torchforce" else SUFFIXES[backend]
    if not output.name.endswith(suffix):
        stem = output.name.split(".")[0]
        compiled = ", or add --backend aotinductor" if output.name.endswith(SUFFIXES["aotinductor"]) else ""
        raise MLIPError(f"-o {output}: file names end in {suffix} here. Type: -o {stem}{suffix}{compiled}")
    _refuse_artifact(Path(source))
    require_file(output)
    progress("loading torch and the framework")
    # Here and not above: these take seconds.
    from mlip_deploy.exporters.fixed_settings import fix_settings
    from mlip_deploy.exporters.targets.torchforce import write_torchforce
    from mlip_deploy.exporters.write import write_artifact

    adapted = FAMILIES[family].adapt(
        str(source),
        ExportOptions(
            modal=modal,
            head=head,
            member=member,
            fuse=fuse and target == "artifact",  # TorchForce files hold no custom operator
            radial=radial,
            elements=tuple(elements),
            trust_checkpoint=trust_checkpoint,
            energy_frame=energy_frame,
            base=None if base is None else str(base),
            fix=fix or {},
            note=note,
        ),
    )
    taken = [one.name for one in adapted.inputs]
    left = {name: value for name, value in (fix or {}).items() if name not in taken}
    if left:
        adapted = fix_settings(adapted, left)
    if target == "torchforce":
        write_torchforce(adapted, output, dtype, progress)
    else:
        write_artifact(adapted, output, dtype, progress, backend, device)
    return output


def check_device(device: str, backend: BackendKind) -> None:
    """Raises MLIPError for a device that files of the back end are not written for, and for a GPU that is not there."""
    if device not in ("cpu", "cuda"):
        raise MLIPError(f"--device: '{device}' is not one of cpu, cuda")
    if device != "cpu" and backend != "aotinductor":
        raise MLIPError(
            f"--device {device}: a file is written for no device, '*.mlip.pt' runs on CPUs and GPUs. Leave it out, and "
            f"give it where the file runs: mlip check NAME.mlip.pt --device {device}"
        )
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise MLIPError(
            f"--device cuda: code for a GPU is compiled on a machine that has one, and torch {torch.__version__} finds "
            "none here. Type it there. Or leave out --backend aotinductor and --device, for a file that runs on CPUs "
            "and GPUs"
        )


def _refuse_artifact(source: Path) -> None:
    """A checkpoint is wanted, not what export has made of one."""
    if not source.is_file() or not zipfile.is_zipfile(source):
        return
    try:
        contract = Artifact(source).contract
    except MLIPError:
        return  # whatever else it is, its framework's loader says so
    raise MLIPError(
        f"'{source}' is an artifact already: {contract.model.name} ({contract.model.family}) in {contract.dtype}. Use "
        f"it as it is, see: mlip info {source}. For other options export the checkpoint that it was made from"
    )
