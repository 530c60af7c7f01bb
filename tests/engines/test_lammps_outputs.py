"""What pair_style mlip gives beside energies and forces: units, extra scalars, messages, memory."""

import re

import numpy as np
import pytest
from lammps_decks import Deck, read_dump
from test_lammps_decks import rocksalt, triclinic
from tolerances import FLOAT64_ROTATED, FORCE_SIGNAL

from mlip_deploy import _core
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines.lammps import run
from mlip_deploy.engines.lammps_files import write_data

MASSES = {"Na": 22.98976928, "Cl": 35.45}
UNITS = {
    # style: Å per length, eV per energy, mass factor from u, LAMMPS's nktv2p, commands
    "real": (1.0, 1 / _core.EV_IN_KCAL_PER_MOL, 1.0, 68568.415, ""),
    "si": (1e10, 1 / 1.602176634e-19, 1.66053906892e-27, 1.0, "neighbor 1.0e-10 bin"),
    "electron": (0.529177210544, 27.211386245981, 1.0, 2.94210108e13, ""),
}


@pytest.mark.parametrize("style", UNITS)
def test_units(style, tiny, tmp_path):
    length, energy, mass, nktv2p, commands = UNITS[style]
    atoms = triclinic()
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell.array / length, scale_atoms=True)
    frame = write_data(scaled, tmp_path / "data")
    script = f"units {style}\nbox tilt large\nread_data data\n{commands}\n"
    script += "".join(f"mass {k + 1} {MASSES[element] * mass:.17g}\n" for k, element in enumerate(frame.elements))
    script += f"pair_style mlip\npair_coeff * * {tiny} Na Cl\n"
    script += "compute e all pe/atom\ncompute p all pressure NULL pair\nthermo_style custom step pe c_p[1]\n"
    script += "dump d all custom 1 d.dump id type x y z fx fy fz c_e\ndump_modify d sort id format float %.17g\nrun 0\n"
    script += 'print "result $(pe:%.17g) $(vol:%.17g) $(c_p[1]:%.17g) $(c_p[4]:%.17g)"'
    output = run(script, tmp_path, ranks=2)
    pe, volume, pxx, pxy = map(float, re.search(r"^result (.*)$", output, flags=re.MULTILINE).group(1).split())
    snapshot = read_dump(tmp_path / "d.dump", frame.elements)[0]
    found = snapshot.atoms
    found.set_cell(found.cell.array * length, scale_atoms=True)
    truth = ase_engine.evaluate(tiny, found)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL
    assert pe * energy == pytest.approx(truth.energy, rel=1e-12)
    np.testing.assert_allclose(snapshot.energies * energy, truth.atomic_energies, atol=FLOAT64_ROTATED)
    np.testing.assert_allclose(snapshot.forces * energy / length, truth.forces, atol=FLOAT64_ROTATED)
    virial = np.array([pxx, pxy]) * volume / nktv2p * energy
    np.testing.assert_allclose(virial, -truth.stress[[0, 5]] * found.get_volume(), rtol=1e-7)
    assert "has a mass of" not in output


def test_extra_scalars(tiny, tmp_path):
    """compute pair: edges over all ranks, seconds in the model."""
    deck = Deck(rocksalt(), "compute extra all pair mlip\nthermo_style custom step pe c_extra c_extra[1] c_extra[2]\n")
    numbers = []
    for ranks in (1, 2):
        script = deck.script("extra", tiny, tmp_path)
        script += 'print "extra $(c_extra:%.17g) $(pe:%.17g) $(c_extra[1]) $(c_extra[2])"'
        numbers.append(re.search(r"^extra (.*)$", run(script, tmp_path, ranks=ranks), re.MULTILINE).group(1).split())
    for energy, total, edges, seconds in numbers:
        assert float(energy) == pytest.approx(float(total), rel=1e-14)
        assert float(edges) > 8 * 6
        assert 0 < float(seconds) < 60
    assert numbers[0][2] == numbers[1][2]


SETUP = {
    "halo": ("halo", r"3 message-passing layer\(s\), halo, ghosts and their edges out to 11.7 Å"),
    "local": ("local", r"0 message-passing layer\(s\), local\n"),
    "graph": ("tiny", r"graph     8 atoms, [1-9]\d* ghosts, [1-9]\d+ edges; at most \d+ ghosts and \d+ edges"),
    "memory": ("tiny", r"memory    [0-9.e-]+ MB on the largest rank outside the model, 0.[0-9]+ MB per exchange"),
    "citation": ("log", r"pair_style mlip with toy-local:\n\nA toy. No journal."),
}  # fmt: skip


@pytest.fixture(scope="module")
def setup_output(tiny, toy_local, toy_halo, tmp_path_factory):
    directory = tmp_path_factory.mktemp("setup")
    decks = {"tiny": tiny, "local": toy_local, "halo": toy_halo}
    script = "".join(Deck(rocksalt()).script(name, path, directory) + "run 0\n" for name, path in decks.items())
    parts = run(script, directory, ranks=2).split("\npair_style mlip\n")
    assert len(parts) == 4, "one table for each model, printed by one rank"
    return {**dict(zip(decks, parts[1:], strict=True)), "log": (directory / "log.lammps").read_text()}


@pytest.mark.parametrize("case", SETUP)
def test_setup_table(case, setup_output):
    model, message = SETUP[case]
    assert re.search(message, setup_output[model]), setup_output[model]


def test_a_mass_that_does_not_fit_its_element_is_named(tiny, tmp_path):
    """Types in the wrong order: the commonest wrong input that runs without an error."""
    swapped = Deck(rocksalt(), pair="pair_style mlip\npair_coeff * * {model} Cl Na")
    output = run(swapped.script("swapped", tiny, tmp_path), tmp_path, ranks=2)
    assert output.count("type 1 has a mass of 22.99 u but is mapped to Cl (35.45 u). Check the order of the ele") == 1
    right = run(Deck(rocksalt()).script("right", tiny, tmp_path), tmp_path)
    assert "has a mass of" not in right


LARGE = """\
units metal
lattice diamond 5.43
region box block 0 25 0 25 0 20
create_box 1 box
create_atoms 1 box
mass 1 28.085
displace_atoms all random 0.1 0.1 0.1 7
pair_style mlip
pair_coeff * * {model} Si
velocity all create 300 1
fix 1 all nve
timestep 0.001
run 2
"""


def test_memory_outside_the_model(toy_local, tmp_path):
    """100,000 atoms of a local model on two ranks: under 1 kB for an atom and 40 bytes for an edge."""
    output = run(LARGE.format(model=toy_local), tmp_path, ranks=2, timeout=500)
    table = re.search(r"graph +(\d+) atoms, .* at most \d+ ghosts and (\d+) edges on one rank", output)
    atoms, edges = map(int, table.groups())
    megabytes = float(re.search(r"memory +(\S+) MB on the largest rank", output).group(1))
    assert atoms == 100000
    assert edges > 5 * atoms
    print(f"{1e6 * megabytes / (atoms / 2):.0f} bytes per atom, {edges / (atoms / 2):.1f} edges per atom")
    assert 1e6 * megabytes < 1000 * atoms / 2 + 40 * edges
    assert 1e6 * megabytes > 64 * edges
