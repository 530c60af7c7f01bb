"""Public reference sets: where each lies, its checksum, licence and energy frame; fetched when asked for.

The package holds none of the data. A file is taken from the folder that `MLIP_DATA_DIR` names, else downloaded by pooch
into its cache; either way its SHA-256 is verified before it is read.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pooch

from mlip_deploy.artifact.contract import EnergyFrame
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError

DATA_DIR = "MLIP_DATA_DIR"

MATCALC = "https://raw.githubusercontent.com/materialsvirtuallab/matcalc/aa76b41edb9ffb62f7efb2b5d3a3f7a8b2b4747d"
DISCOVERY = "https://raw.githubusercontent.com/janosh/matbench-discovery/2c7f9fc42d018711dc2f5df573d225ea6d2d17b2"
MLEARN = "https://raw.githubusercontent.com/materialsvirtuallab/mlearn/10c427a5480c6281c15c64efaf869b03be04818f"
ARENA = "https://raw.githubusercontent.com/atomind-ai/mlip-arena/6239aea513c494aeab237fc96ef133b9b1cc204f"

PBE_WITH_U = EnergyFrame(functional="PBE (MP)", hubbard_u="MP2020 values", corrections="none", dispersion="none")
PBE_WITH_U_CORRECTED = PBE_WITH_U.model_copy(update={"corrections": "MP2020"})
PBE = EnergyFrame(functional="PBE", hubbard_u="none", corrections="none", dispersion="none")
R2SCAN = PBE.model_copy(update={"functional": "r2SCAN"})


class MissingDataError(MLIPError):
    """A set is not on this machine and could not be fetched."""


@dataclass(frozen=True)
class Dataset:
    """One file of a public set."""

    name: str
    """what a user types"""
    content: str
    file: str
    """relative to `MLIP_DATA_DIR`"""
    url: str
    sha256: str
    licence: str
    citation: str
    reader: str
    """which function of mlip_deploy.reference_data.readers understands it"""
    energies: Mapping[str, EnergyFrame]
    """energy frame of each kind of energy in the file, by the name that `--frame` takes; the first is the one that is
    compared unless another is asked for; empty for sets without energies"""
    same_potentials: bool = True
    """False where other pseudopotentials than the Materials Project's set another zero of energy for each element, so
    that energies can be compared after a fit of one shift per element only"""


def _mlearn(symbol: str, sha256: str) -> Dataset:
    return Dataset(
        name=f"mlearn-{symbol}",
        content=f"{symbol}: frames of ab initio MD, strained crystals, vacancies and surfaces (the set's test frames)",
        file=f"mlearn/{symbol}.json",
        url=f"{MLEARN}/data/{symbol}/test.json",
        sha256=sha256,
        licence="BSD-3-Clause",
        citation="Zuo et al., J. Phys. Chem. A 124, 731 (2020)",
        reader="mlearn",
        energies={"raw": PBE},
        same_potentials=False,
    )


def _diatomics(functional: str, frame: EnergyFrame) -> Dataset:
    return Dataset(
        name=f"diatomics-{functional}",
        content=f"92 homonuclear dimers, energy and force against distance, {functional}",
        file="diatomics-dft.json.gz",
        url=f"{DISCOVERY}/site/src/lib/diatomics-dft.json.gz",
        sha256="1fe6334a82e98208ea74169a3beaf98cd5188bdc7ac40e518697fd36c7196e3d",
        licence="MIT",
        citation="Matbench Discovery, https://matbench-discovery.materialsproject.org/tasks/diatomics",
        reader=f"diatomics_{functional.lower()}",
        energies={"raw": frame},
        same_potentials=False,
    )


def _vacancies(table: str, lattice: str, sha256: str) -> Dataset:
    return Dataset(
        name=f"vacancies-{lattice}",
        content=f"vacancy formation and migration energies of elements in {lattice} lattices",
        file=f"vacancy-Table-{table}-{lattice}.csv",
        url=f"{ARENA}/benchmarks/vacancy_migration/Table-{table}-{lattice}.csv",
        sha256=sha256,
        licence="Apache-2.0",
        citation="Angsten et al., New J. Phys. 16, 015018 (2014)",
        reader="vacancies",
        energies={},
    )


_ALL = (
    Dataset(
        name="wbm",
        content="972 relaxed crystals of 83 elements",
        file="wbm-random-pbe52-equilibrium-2025.1.json.gz",
        url=f"{MATCALC}/benchmark_data/wbm-random-pbe52-equilibrium-2025.1.json.gz",
        sha256="8fc0aa85e6c9d56b03f8c742a377a143a8fc885b5930e11af596e43c1832d9d0",
        licence="BSD-3-Clause",
        citation="Wang, Botti, Marques, npj Comput. Mater. 7, 12 (2021); selection of MatCalc",
        reader="wbm",
        energies={"raw": PBE_WITH_U, "mp2020": PBE_WITH_U_CORRECTED},
    ),
    Dataset(
        name="mp-elements",
        content="the structure of lowest energy of each of 88 elements",
        file="mp-pbe-element-refs.json.gz",
        url=f"{MATCALC}/src/matcalc/elemental_refs/MP-PBE-Element-Refs.json.gz",
        sha256="66b350622126ca725c0ab1197b2ec3e27f752ef25dfeff21eb1db7be9ad72f0c",
        licence="BSD-3-Clause",
        citation="Jain et al., APL Mater. 1, 011002 (2013); selection of MatCalc",
        reader="mp_elements",
        energies={"raw": PBE_WITH_U},
    ),
    Dataset(
        name="mp-elasticity",
        content="bulk and shear moduli (Voigt-Reuss-Hill) of 3953 binary crystals",
        file="mp-binary-pbe-elasticity-2025.1.json.gz",
        url=f"{MATCALC}/benchmark_data/mp-binary-pbe-elasticity-2025.1.json.gz",
        sha256="5689599491322805bda913663eeef8d567f64ada80c90173d50fb7b6fb0b5896",
        licence="BSD-3-Clause",
        citation="de Jong et al., Sci. Data 2, 150009 (2015); selection of MatCalc",
        reader="elasticity",
        energies={},
    ),
    _diatomics("PBE", PBE),
    _diatomics("r2SCAN", R2SCAN),
    _vacancies("A1", "fcc", "7bfef8d9222fd85fbaec10ab4092c07b618e536024e6708412050ea17e09a7c9"),
    _vacancies("A2", "hcp", "8ad4a5ef04368375a3c680a882b6241984a0dab9bedd6b5920e5a0cb07e7f5d6"),
    _mlearn("Si", "d452b30a89f23bff76f7cc529b7b6c2d159ea81ccd5a4599fb1a18207654fa91"),
    _mlearn("Cu", "1805a315ce8d0ce4a18bb761df4c4f619909ce114d598d426015d0071edc98c2"),
    _mlearn("Ni", "dccbfa14ddff5d1d35f658c48b68f6b431f95496a5261ef8b8f4d1d41e36008a"),
    _mlearn("Li", "554d0ce60b35a07b357be3a80bf04f68eb8fc97b5a88328caf08c860b5e9b260"),
)
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ALL}


def fetch(dataset: Dataset) -> Path:
    """The file of a set on this machine, its checksum verified.

    Raises:
        MLIPError: for a file with another checksum, local or downloaded.
        MissingDataError: when there is neither a local file nor a download.
    """
    folder = os.environ.get(DATA_DIR)
    root = Path(folder or "DATA")
    if folder and (local := Path(folder) / dataset.file).exists():
        found = file_sha256(local)
        if found != dataset.sha256:
            raise MLIPError(
                f"'{local}' has SHA-256 {found[:12]}…, the set '{dataset.name}' has {dataset.sha256[:12]}…. "
                f"Fetch it anew: {_download_line(dataset, local)}"
            )
        return local
    log = pooch.get_logger()  # of the whole process: it gets its level back
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        return Path(
            pooch.retrieve(
                url=dataset.url,
                known_hash=f"sha256:{dataset.sha256}",
                fname=Path(dataset.file).name if "/" not in dataset.file else dataset.file.replace("/", "-"),
                path=pooch.os_cache("mlip-deploy"),
            )
        )
    except ValueError as error:  # pooch's for a wrong hash; it has removed the file
        got = re.search(r"but got '?(\w+)", str(error))
        raise MLIPError(
            f"{dataset.url} has SHA-256 {got[1] if got else 'unknown'}, the set '{dataset.name}' has {dataset.sha256}: "
            f"it came damaged or is another file now. Try again, or fetch it by hand and compare: "
            f"{_download_line(dataset, root / dataset.file)} && sha256sum {root / dataset.file}"
        ) from error
    except OSError as error:  # requests' errors are OSErrors
        looked = f"in {DATA_DIR}={folder}" if folder else f"in a folder named by {DATA_DIR}"
        raise MissingDataError(
            f"the set '{dataset.name}' is neither {looked} nor could it be downloaded ({type(error).__name__}). "
            f"Where there is a network, type: {_download_line(dataset, root / dataset.file)} && "
            f"export {DATA_DIR}={root}"
        ) from error
    finally:
        log.setLevel(level)


def _download_line(dataset: Dataset, target: Path) -> str:
    return f"curl --create-dirs -Lo {target} {dataset.url}"
