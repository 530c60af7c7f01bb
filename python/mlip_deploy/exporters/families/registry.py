"""The families of models that can be exported: one adapter module each, imported when it is asked for.

An adapter has one function, `adapt(source, options) -> Adapted`. It knows its framework and no engine; frameworks
that exclude each other's versions never meet, because an artifact runs without its family's package.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from mlip_deploy.artifact.contract import EXAMPLE_FRAME, Contract, EnergyFrame
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress, silent

if TYPE_CHECKING:
    from mlip_deploy.exporters.interface import Adapted


Radial = Literal["auto", "table", "exact"]


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose at export. An adapter refuses, by name, what its models do not have."""

    modal: str | None = None
    """training modality, for checkpoints that have several"""
    head: str | None = None
    """read-out head, for models that have several"""
    member: int | None = None
    """the one of an ensemble, counted from 0; the mean of all when None"""
    fuse: bool = True
    """put mlip's fused operators in place of the framework's own layers"""
    radial: Radial = "auto"
    """of fused operators: "table" or "exact" radial networks; "auto": tables in float32, exact in float64"""
    elements: tuple[str, ...] = ()
    """chemical symbols to keep; all of the model's when empty"""
    trust_checkpoint: bool = False
    """run the code that a pickled checkpoint file may contain (see checkpoints.py)"""
    energy_frame: EnergyFrame | None = None
    """with what the energies may be compared, for a checkpoint of which nothing is published"""
    base: str | None = None
    """what it was fine-tuned from, whose energy frame it has: a name of the same family, a checkpoint or an artifact"""
    fix: Mapping[str, float | int | str] = field(default_factory=dict)
    """values by name that the file fixes. An adapter whose weights depend on one takes it from here and records it
    among the contract's inputs; the others fix settings of the model (fixed_settings.py)"""
    note: Progress = silent
    """is told what an adapter chose by itself, in a line that the user should read"""

    def tabulate(self, in_float32: bool) -> bool:
        """Whether radial networks become tables in a model that computes in float32, or in float64."""
        return self.radial == "table" or (self.radial == "auto" and in_float32)


VARIANTS = {"modal": "modalities", "head": "heads", "member": "members"}
"""Options that choose one of several models in a checkpoint, and what they choose from."""


@dataclass(frozen=True)
class Family:
    """A framework whose models can be exported."""

    name: str
    package: str
    """import name of the framework"""
    install: str
    """the line to type when it is missing"""
    sources: str
    """what SOURCE may be"""
    variant: str | None = None
    """the one of VARIANTS that its checkpoints have"""

    @property
    def installed(self) -> bool:
        """Whether the framework can be imported here."""
        try:
            return importlib.util.find_spec(self.package) is not None
        except ModuleNotFoundError:  # of a package in a namespace, without the namespace
            return False

    def version(self) -> str | None:
        """Release of the framework's distribution, the first that `install` names; None without it."""
        try:
            return metadata.version(self.install.removeprefix("pip install ").split()[0].partition("==")[0])
        except metadata.PackageNotFoundError:
            return None

    def adapt(self, source: str, options: ExportOptions) -> Adapted:
        """A model of the family behind the model interface.

        Raises:
            MLIPError: when the framework is missing, the source is unknown, or an option does not fit the model.
        """
        self._refuse_other_variants(options)
        if not self.installed:
            raise MLIPError(f"the package '{self.package}' is not installed. Type: {self.install}")
        from mlip_deploy.exporters.settings import quiet

        with quiet():  # frameworks call torch.jit when they are imported
            adapted: Adapted = importlib.import_module(f"mlip_deploy.exporters.families.{self.name}.adapter").adapt(
                source, options
            )
        frame = self._energy_frame(adapted, source, options)
        return adapted if frame is None else replace(adapted, energy_frame=frame)

    def _energy_frame(self, adapted: Adapted, source: str, options: ExportOptions) -> EnergyFrame | None:
        """What the user says of the energies; None where nothing is said."""
        if options.base is not None and options.energy_frame is not None:
            raise MLIPError("--base and --energy-frame both say the energy frame. Leave one of them out")
        if options.base is not None:
            frame, said = self._frame_of_base(options.base, adapted, options), f"--base {options.base}"
        elif options.energy_frame is not None:
            frame, said = options.energy_frame, "--energy-frame"
        else:
            return None
        published = adapted.energy_frame
        if "unknown" not in dict(published).values() and frame != published:
            raise MLIPError(
                f"{said} says {frame.describe()}, but the energies of {source} are known to be {published.describe()}. "
                "Leave the option out"
            )
        return frame

    def _frame_of_base(self, base: str, adapted: Adapted, options: ExportOptions) -> EnergyFrame:
        from mlip_deploy.artifact.reader import (  # takes NumPy and ASE, which a list of families does not
            SUFFIXES,
            Artifact,
        )

        if base.endswith(tuple(SUFFIXES.values())):
            found: Adapted | Contract = Artifact(base).contract
        else:
            found = self.adapt(base, replace(options, base=None, elements=()))
        if (found.cutoff, found.message_passing_layers) != (adapted.cutoff, adapted.message_passing_layers):
            raise MLIPError(
                f"--base {base} has a cutoff of {found.cutoff:g} Å and {found.message_passing_layers} layers, the "
                f"checkpoint {adapted.cutoff:g} Å and {adapted.message_passing_layers}: it was fine-tuned from another "
                "model. Name that one"
            )
        if "unknown" in dict(found.energy_frame).values():
            raise MLIPError(
                f"--base {base}: its energy frame is unknown too ({found.energy_frame.describe()}). Say what you know, "
                f'in place of --base: --energy-frame "{EXAMPLE_FRAME.declaration()}"'
            )
        return found.energy_frame

    def _refuse_other_variants(self, options: ExportOptions) -> None:
        for option, several in VARIANTS.items():
            value = getattr(options, option)
            if value is None or option == self.variant:
                continue
            if self.variant is None or "member" in (option, self.variant):  # a number is no name
                raise MLIPError(f"--{option} {value}: {self.name} models have no {several}. Leave --{option} out")
            raise MLIPError(
                f"--{option} {value}: {self.name} models have {VARIANTS[self.variant]}, not {several}. Type: "
                f"--{self.variant} {value}"
            )


FAMILIES = {
    family.name: family
    for family in [
        Family(
            "sevennet",
            "sevenn",
            "pip install sevenn",
            "7net-0, 7net-l3i5, 7net-mf-0, 7net-mf-ompa, 7net-omat, 7net-omni, 7net-omni-i8 or 7net-omni-i12, or a "
            "checkpoint file (*.pth)",
            "modal",
        ),
        Family("chgnet", "chgnet", "pip install chgnet", "0.3.0, r2scan or 0.2.0, or a checkpoint file (*.pth.tar)"),
        Family(
            "mace",
            "mace",
            "pip install mace-torch",
            "a foundation name such as medium-mpa-0, or a file (*.model)",
            "head",
        ),
        Family(
            "nequip",
            "nequip",
            "pip install nequip nequip-allegro",
            "NequIP-OAM-L, NequIP-OAM-XL or Allegro-OAM-L, nequip.net:GROUP/MODEL:VERSION, or a NequIP or Allegro "
            "checkpoint (*.ckpt) or package (*.nequip.zip)",
        ),
        # Without its requirements: JAX with CUDA, which an export does not need.
        Family(
            "nequix",
            "nequix",
            "pip install nequix --no-deps && pip install e3nn scipy",
            "mp-1, oam-1, omat-1, mp-1-pft or oam-1-pft, or a checkpoint file (*.nqx, *.pt)",
        ),
        # Without its requirements: an older torch than may be there, and packages for data sets.
        Family(
            "ani",
            "torchani",
            "pip install torchani --no-deps && pip install huggingface_hub",
            "2x, 1x or 1ccx, or a file of TorchANI (*.pt) or NeuroChem (*.info)",
            "member",
        ),
        # Without its requirements: one release of torch-geometric, and packages for training.
        Family(
            "so3lr",
            "so3krates_torch",
            "pip install so3krates-torch --no-deps && pip install h5py matscipy tqdm",
            "so3lr, or a file that holds a whole SO3LR model (*.model)",
        ),
        # Without its requirements: packages for workflows, data bases and training.
        Family(
            "mattersim",
            "mattersim",
            "pip install mattersim==1.2.3 --no-deps && pip install deprecated e3nn loguru pymatgen scikit-learn "
            "torch-ema torch-geometric torch-runstats torchmetrics",
            "mattersim-v1.0.0-1m or mattersim-v1.0.0-5m, or a checkpoint file (*.pth)",
        ),
        Family(
            "pet",
            "metatrain",
            "pip install metatrain",
            "pet-mad-s, pet-oam-xl or another name of upet with its size, or a checkpoint file (*.ckpt)",
            "head",
        ),
        # Without its requirements: training, data sets, and compilers for GPUs.
        Family(
            "fairchem",
            "fairchem.core",
            "pip install fairchem-core --no-deps && pip install e3nn hydra-core monty",
            "an inference checkpoint of eSEN or UMA (*.pt)",
            "modal",
        ),
        Family(
            "matgl",
            "matgl",
            "pip install matgl",
            "TensorNet-PES-MatPES-PBE-2025.2 or TensorNet-PES-MatPES-r2SCAN-2025.2, each also with -m, or the folder "
            "of a TensorNet potential",
        ),
        # Without its requirements: a newer setuptools than others allow, and kernels for GPUs.
        Family(
            "torchmdnet",
            "torchmdnet",
            "pip install torchmd-net --no-deps && pip install h5py lightning torch-geometric tqdm",
            "a checkpoint file of a TensorNet (*.ckpt)",
        ),
        # Without its requirements: an older dm-tree, and a package for downloads.
        Family(
            "orb",
            "orb_models",
            "pip install orb-models==0.5.5 --no-deps && pip install dm-tree scipy",
            "orb-v3-conservative-inf-omat, -20-omat, -inf-mpa, -20-mpa or -omol, or a checkpoint file (*.ckpt)",
        ),
    ]
}


def keep_elements(elements: list[str], kept: tuple[str, ...], model: str) -> list[str]:
    """The elements that an exported model has: `kept`, in the model's order; all of them when `kept` is empty.

    Raises:
        MLIPError: names the elements that the model lacks.
    """
    absent = [symbol for symbol in kept if symbol not in elements]
    if absent:
        raise MLIPError(
            f"--elements {' '.join(kept)}: {model} does not know {', '.join(absent)}. Its {len(elements)} elements: "
            f"{' '.join(elements)}"
        )
    return [symbol for symbol in elements if symbol in kept] if kept else elements
