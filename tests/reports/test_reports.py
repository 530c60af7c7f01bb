"""What users reported, a line each: what they did, the small input, the number or the message that is right.

`{local}` is a local model of Na, Cl and Si, `{checkpoint}` a file of SevenNet, `{folder}` an empty folder.
"""

import re

import pytest
from ase import Atoms
from ase.build import bulk
from conftest import mlip
from tolerances import FLOAT64_ROTATED

import mlip_deploy
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.engines.lammps_files import write_data


def atom_energy(strengths, scale):
    """eV of one atom of rocksalt at 5.2 Å in toy_models.LocalEnergy (cutoff 3.9 Å), worked out by hand.

    Of an atom with 6 neighbours at 2.6 Å and 12 at 3.677 Å, of these strengths; dipoles vanish.
    """
    density = 6 * strengths[0] * (1 - 2.6**2 / 3.9**2) ** 3 + 12 * strengths[1] * (1 - 2 * 2.6**2 / 3.9**2) ** 3
    return scale * (0.4 * density**2 - 2.0 * (density + 0.1) ** 0.5)


CRYSTAL = 4 * (atom_energy((1.6, 1.0), 0.8) + atom_energy((1.0, 1.6), 1.9))  # eV, 4 Na and 4 Cl
CHLORINE = 8 * atom_energy((1.6, 1.6), 1.9)  # eV, 8 Cl

STYLE = "pair_style mlip\npair_coeff * * {local} Na Cl"
# What was done, an input after read_data of that crystal (and before `run 0`), its energy or its error.
LAMMPS = [
    ("nothing else", STYLE, CRYSTAL),
    ("the file by a variable", "variable m string {local}\npair_style mlip\npair_coeff * * ${{m}} Na Cl", CRYSTAL),
    ("all types are one element", STYLE.replace("Na Cl", "Cl Cl"), CHLORINE),
    ("types changed to one element after a run", STYLE + "\nrun 0\nset group all type 2", CHLORINE),
    ("replicate after a run", STYLE + "\nrun 0\nreplicate 2 1 3", 6 * CRYSTAL),
    ("a model switched on slowly, as by fix adapt",
     "variable x equal 0.25\npair_style hybrid/scaled v_x mlip\npair_coeff * * mlip {local} Na Cl", CRYSTAL / 4),
    ("two styles on one pair, one of them nothing",
     "pair_style hybrid/overlay mlip zero 9\npair_coeff * * mlip {local} Na Cl\npair_coeff * * zero", CRYSTAL),
    ("the style again after a run", STYLE + "\nrun 0\n" + STYLE, CRYSTAL),
    ("a run of rRESPA", STYLE + "\nrun_style respa 2 2 bond 1 pair 2", CRYSTAL),
    ("rRESPA that splits the pair style", STYLE + "\nrun_style respa 2 2 inner 1 3.0 4.0 outer 2",
     "Pair style does not support rRESPA inner/middle/outer"),
    ("a checkpoint in place of an artifact", STYLE.replace("{local}", "{checkpoint}"), "Export it first: mlip export"),
    ("elements by number", STYLE.replace("Na Cl", "11 17"), "type 1 is '11', not an element of toy-local"),
]  # fmt: skip

# What was done, the words after `mlip`, the exit status, words of the output.
COMMANDS = [
    ("a misspelt command", "chek {local}", 2, "invalid choice: 'chek'"),
    ("a checkpoint in place of an artifact", "info {checkpoint}", 2, "Export it first: mlip export"),
    ("a folder in place of an artifact", "info {folder}", 2, "is a folder"),
    ("no threads", "bench {local} --threads 0", 2, "argument --threads: '0': expected positive numbers"),
    ("comparison of one file", "compare {local} -o {folder}/out", 2, "For one, type: mlip validate FILE"),
    (
        "a LAMMPS that is nowhere",
        "deploy lammps --lammps-root {folder}/no --mpi-include x",
        2,
        "no LAMMPS headers",
    ),
    (
        "elements that a model has not",
        "validate {local} --suite physics --elements Xe -o {folder}/out",
        2,
        "'Xe' is not an element of",
    ),
]

# What was done, a snippet (its names: see test_python), the exception, its words.
PYTHON = [
    ("a periodic cell without volume", "Atoms('Na', pbc=True, calculator=MLIPCalculator(path)).get_potential_energy()",
     "MLIPError", "the periodic cell has no volume"),
    ("an atom X", "Atoms('X', calculator=MLIPCalculator(path)).get_potential_energy()",
     "MLIPError", r"atom 0 \(counted from 0\) is 'X', not an element of toy-local"),
    ("stress of a molecule", "Atoms('NaCl', [[0, 0, 0], [2.4, 0, 0]], calculator=MLIPCalculator(path)).get_stress()",
     "PropertyNotImplementedError", "stress is over the volume of the cell, which needs three vectors"),
    ("charges of a model without", "MLIPCalculator(path).get_property('charges', crystal)",
     "PropertyNotImplementedError", "charges"),
    ("a folder in place of a file", "MLIPCalculator('.')", "MLIPError", "is a folder"),
    ("a file that is not there", "mlip_deploy.check('no.mlip.pt')", "MLIPError", "no such file"),
]  # fmt: skip


def rows(table):
    return [pytest.param(*row[1:], id=row[0]) for row in table]


@pytest.fixture
def names(toy_local, artifacts, tmp_path):
    """What stands in braces."""
    return {"local": toy_local, "checkpoint": artifacts.checkpoint(), "folder": tmp_path}


@pytest.fixture
def crystal():
    return bulk("NaCl", "rocksalt", a=5.2, cubic=True)


@pytest.mark.parametrize(("text", "expected"), rows(LAMMPS))
def test_lammps(text, expected, names, crystal, tmp_path):
    write_data(crystal, tmp_path / "crystal.data")
    script = f"units metal\nread_data crystal.data\n{text.format(**names)}\nrun 0\nprint 'energy $(pe:%.17g)'\n"
    if isinstance(expected, str):
        with pytest.raises(LAMMPSError, match=expected):
            run(script, tmp_path)
    else:
        energy = re.findall(r"^energy (\S+)$", run(script, tmp_path), re.MULTILINE)[-1]
        assert float(energy) == pytest.approx(expected, abs=FLOAT64_ROTATED)


@pytest.mark.parametrize(("words", "status", "message"), rows(COMMANDS))
def test_command(words, status, message, names):
    done = mlip(*words.format(**names).split())
    output = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode, "Traceback" in output) == (status, False), output
    assert message in output


@pytest.mark.parametrize(("snippet", "error", "message"), rows(PYTHON))
def test_python(snippet, error, message, toy_local, crystal):
    known = {"path": toy_local, "crystal": crystal, "Atoms": Atoms, "MLIPCalculator": MLIPCalculator}
    with pytest.raises(Exception, match=message) as raised:
        exec(snippet, {**known, "mlip_deploy": mlip_deploy})
    assert raised.type.__name__ == error
