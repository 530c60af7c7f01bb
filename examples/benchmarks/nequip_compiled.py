"""The file that NequIP's own compiler writes, as an ASE calculator that `mlip bench` puts beside an exported one.

    nequip-compile MODEL.nequip.zip model.nequip.pt2 --mode aotinductor --device cpu --target ase
    NEQUIP_FILE=model.nequip.pt2 PYTHONPATH=examples/benchmarks \\
      mlip bench model.mlip.pt --against nequip_compiled:calculator --systems si64,si216,si512
"""

import os

from ase.calculators.calculator import Calculator
from nequip.integrations.ase import NequIPCalculator


def calculator() -> Calculator:
    return NequIPCalculator.from_compiled_model(
        os.environ["NEQUIP_FILE"], device="cpu", chemical_species_to_atom_type_map=True
    )
