"""A table of decks: whatever LAMMPS did, its last snapshot agrees with ASE for the same atoms, on any rank count."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from lammps_decks import Deck, Outcome, run_decks
from tolerances import FLOAT64_ROTATED, FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines.lammps import LAMMPSError
from mlip_deploy.engines.lammps_files import LAMMPS_METAL_NKTV2P


def rocksalt(repeat=(1, 1, 1), pbc=True, vacuum=(0, 0, 0), amplitude=0.12, seed=1):
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True).repeat(repeat)
    atoms.positions += np.random.default_rng(seed).normal(scale=amplitude, size=atoms.positions.shape)
    atoms.set_cell(atoms.cell.array + np.diag(vacuum))
    atoms.pbc = pbc
    return atoms


def triclinic(repeat=(1, 1, 1)):
    atoms = rocksalt(repeat)
    atoms.set_cell(atoms.cell.array @ [[1, 0.12, -0.05], [0, 0.97, 0.3], [0, 0, 1.03]], scale_atoms=True)
    return atoms


def with_isolated_atom():
    atoms = rocksalt(vacuum=(25, 0, 0))
    return atoms + Atoms("Na", positions=[[18.0, 1.0, 2.0]])


HOT = "velocity all create 1500 1\nneighbor 0.3 bin\nneigh_modify every 1 delay 0 check yes\ntimestep 0.001\n"
ON_4_RANKS = (1, 2, 4)

# One structure, `run 0`: every way to cut the box.
PARITY = {
    "a cell smaller than twice the cutoff": Deck(rocksalt(), ranks=ON_4_RANKS),
    "a primitive cell": Deck(bulk("Si", "diamond", a=5.3), ranks=ON_4_RANKS),
    "triclinic": Deck(triclinic(), ranks=ON_4_RANKS),
    "slabs thinner than the cutoff": Deck(rocksalt(), before="processors * 1 1", ranks=ON_4_RANKS),
    "processors 1 1 *": Deck(rocksalt((1, 1, 3)), before="processors 1 1 *", ranks=ON_4_RANKS),
    "a grid of processors": Deck(triclinic((2, 2, 1)), before="processors * * 1", ranks=ON_4_RANKS),
    "ranks without atoms": Deck(rocksalt(vacuum=(40, 0, 0)), before="processors * 1 1", ranks=ON_4_RANKS),
    "an isolated atom": Deck(with_isolated_atom(), before="processors * 1 1", ranks=ON_4_RANKS),
    "only an isolated atom": Deck(Atoms("Na", positions=[[5, 5, 5]], cell=[20, 20, 20], pbc=True), ranks=ON_4_RANKS),
    "a slab": Deck(rocksalt(pbc=(1, 1, 0)), ranks=ON_4_RANKS),
    "a wire": Deck(rocksalt(pbc=(0, 0, 1)), ranks=ON_4_RANKS),
    "a molecule": Deck(rocksalt(pbc=False), ranks=ON_4_RANKS),
    "shrink-wrapped": Deck(rocksalt(pbc=(1, 0, 0)), boundary="p s m", ranks=ON_4_RANKS),
    "tiled": Deck(
        rocksalt((3, 2, 1)), settings="comm_style tiled\nbalance 1.0 rcb", before="neighbor 1.0 bin", ranks=ON_4_RANKS
    ),
    "tiled, most atoms in one corner": Deck(
        rocksalt((2, 1, 1), vacuum=(20, 15, 15)), settings="comm_style tiled\nbalance 1.0 rcb", ranks=ON_4_RANKS
    ),
    "shuffled ids with gaps": Deck(rocksalt(), ids=(70, 3, 9, 1, 200, 44, 12, 5), ranks=ON_4_RANKS),
    "atom_style charge": Deck(rocksalt(), style="charge", ranks=ON_4_RANKS),
    "atom_style full": Deck(rocksalt(), style="full"),
    "bonds": Deck(rocksalt(), style="bonded", settings="bond_style zero\nbond_coeff *\nspecial_bonds lj/coul 1 1 1"),
    "bonds, with tiny weights": Deck(
        rocksalt(), style="bonded", settings="bond_style zero\nbond_coeff *\nspecial_bonds lj/coul 1e-30 0 0"
    ),
    "hybrid/scaled, the style twice": Deck(
        rocksalt(),
        pair="variable part equal 0.25\npair_style hybrid/scaled v_part mlip 0.75 mlip\n"
        "pair_coeff * * mlip 1 {model} {elements}\npair_coeff * * mlip 2 {model} {elements}",
    ),
    "an odd number of atoms": Deck(rocksalt()[1:], ranks=ON_4_RANKS),
    "local: a cell": Deck(triclinic(), model="local", ranks=ON_4_RANKS),
    "local: ranks without atoms": Deck(rocksalt(vacuum=(40, 0, 0)), model="local", ranks=ON_4_RANKS),
    "halo: a cell": Deck(rocksalt(), model="halo", ranks=ON_4_RANKS),
    "halo: triclinic": Deck(triclinic((2, 1, 1)), model="halo", ranks=ON_4_RANKS),
    "halo: slabs thinner than the cutoff": Deck(
        rocksalt((1, 1, 2)), before="processors * 1 1", model="halo", ranks=ON_4_RANKS
    ),
    "halo: ranks without atoms": Deck(
        rocksalt(vacuum=(40, 0, 0)), before="processors * 1 1", model="halo", ranks=ON_4_RANKS
    ),
    "halo: a slab": Deck(rocksalt(pbc=(1, 1, 0)), model="halo", ranks=ON_4_RANKS),
    "halo: tiled": Deck(
        rocksalt((3, 3, 3)), settings="comm_style tiled\nbalance 1.0 rcb", before="neighbor 0.1 bin", model="halo"
    ),
    "halo: under hybrid": Deck(
        rocksalt(),
        pair="pair_style hybrid/overlay mlip zero 3\npair_coeff * * mlip {model} {elements}\npair_coeff * * zero",
        model="halo",
    ),
}  # fmt: skip

# Longer runs: what users do around a potential.
RUNS = {
    "nve, atoms change ranks": Deck(rocksalt((3, 1, 1)), HOT + "fix 1 all nve\nrun 40", every=10, ranks=ON_4_RANKS),
    "halo: nve": Deck(rocksalt((2, 1, 1)), HOT + "fix 1 all nve\nrun 40", every=10, model="halo"),
    "langevin": Deck(
        rocksalt(), HOT + "fix 1 all nve\nfix 2 all langevin 900 900 0.05 4\nrun 20\nunfix 2", every=10
    ),
    "npt iso": Deck(rocksalt((2, 1, 1)), HOT + "fix 1 all npt temp 900 900 0.05 iso 0 0 0.2\nrun 20", every=10),
    "npt aniso": Deck(rocksalt((2, 1, 1)), HOT + "fix 1 all npt temp 900 900 0.05 aniso 0 0 0.2\nrun 20", every=10),
    "npt tri": Deck(triclinic((2, 1, 1)), HOT + "fix 1 all npt temp 900 900 0.05 tri 0 0 0.2\nrun 20", every=10),
    # Without snapshots on the way: the box that a dump writes there is already the next step's.
    "deform": Deck(
        triclinic((2, 1, 1)), HOT + "fix 1 all nve\nfix 2 all deform 1 x erate 2 xy erate 1 remap v\nrun 20\nunfix 2"
    ),
    "minimize": Deck(rocksalt(), "minimize 0 1e-3 60 120", ranks=(1, 2)),
    "box/relax": Deck(rocksalt(), "fix 1 all box/relax aniso 0\nminimize 0 1e-3 30 60\nunfix 1"),
    "box/relax of all six": Deck(triclinic((2, 1, 1)), "fix 1 all box/relax tri 0\nminimize 0 1e-3 30 60\nunfix 1"),
    "rRESPA": Deck(
        rocksalt((2, 1, 1)),
        HOT + "run_style respa 2 2 bond 1 pair 2\nfix 1 all nve\nrun 20\nrun_style verlet", every=10,
    ),
    "delete_atoms and reset_atoms": Deck(
        rocksalt((2, 2, 1)),
        HOT + "fix 1 all nve\nrun 3\ndelete_atoms random count 5 yes all NULL 7\nreset_atoms id sort yes\nrun 5",
        every=5, ranks=ON_4_RANKS,
    ),
    "balance between runs": Deck(
        rocksalt((3, 1, 1), vacuum=(20, 0, 0)),
        HOT + "fix 1 all nve\nrun 3\nbalance 1.0 shift x 10 1.01\nrun 5\nbalance 1.0 shift x 10 1.01\nrun 5",
        before="processors * 1 1", every=1, ranks=ON_4_RANKS,
    ),
    "atoms sorted at every step, a hashed map": Deck(
        rocksalt((3, 1, 1)), HOT + "fix 1 all nve\nrun 20", before="atom_modify map hash sort 1 2.0", every=1,
        ranks=ON_4_RANKS,
    ),
    "a list kept for seven steps": Deck(
        triclinic((2, 1, 1)),
        HOT + "neighbor 2.5 bin\nneigh_modify every 7 delay 7 check no\nfix 1 all nve\nrun 30", every=1,
    ),
    "fix balance": Deck(
        rocksalt((4, 1, 1), vacuum=(30, 0, 0)),
        HOT + "fix 1 all nve\nfix 2 all balance 5 1.0 shift x 5 1.01\nrun 20",
        before="processors * 1 1",
        ranks=ON_4_RANKS,
        every=10,
    ),
    "fix balance, tiled": Deck(
        rocksalt((3, 2, 1), vacuum=(20, 10, 0)),
        HOT + "fix 1 all nve\nfix 2 all balance 5 1.0 rcb\nrun 20",
        settings="comm_style tiled",
        ranks=ON_4_RANKS,
        every=10,
    ),
    "deposit": Deck(
        rocksalt(vacuum=(0, 0, 15)),
        "region top block 0 5 0 5 12 17\nfix 1 all nve\n"
        "fix 2 all deposit 5 1 4 99 region top near 1.0 vz -2 -2\nrun 30",
        every=10,
    ),
    "delete_atoms": Deck(
        rocksalt((2, 1, 1)), "run 0\ngroup some id 3 7 12\ndelete_atoms group some compress no\nrun 0"
    ),
    "run 0 twice": Deck(rocksalt(), "run 0\nrun 0"),
    "more steps without a set-up": Deck(rocksalt(), HOT + "fix 1 all nve\nrun 3\nrun 3 pre no\nrun 3 pre no", every=3),
    "set type between runs": Deck(
        rocksalt((3, 1, 1)), HOT + "fix 1 all nve\nrun 3\nset atom 2*4 type 1\nset atom 15 type 2\nrun 2 pre no",
        every=1, ranks=ON_4_RANKS,
    ),
    "halo: set type between runs": Deck(
        rocksalt((2, 1, 1)), HOT + "fix 1 all nve\nrun 3\nset atom 2*4 type 1\nrun 2 pre no", every=1, model="halo"
    ),
    "displace_atoms between runs": Deck(
        rocksalt((2, 1, 1)), HOT + "fix 1 all nve\nrun 3\ndisplace_atoms all random 0.1 0.3 0.2 7\nrun 2 pre no",
        every=1,
    ),
    "atom/swap": Deck(
        rocksalt((2, 1, 1)),
        "neigh_modify every 1 delay 0 check yes\nfix 2 all atom/swap 2 4 7 1e6 ke no types 1 2\nrun 6",
        every=1,
    ),
    "replicate": Deck(rocksalt(), settings="replicate 2 1 1"),
    "change_box": Deck(
        rocksalt(), settings="change_box all triclinic", body="change_box all xy final 0.8 x scale 1.03 remap"
    ),
    "another model for the same box": Deck(
        rocksalt(), "pair_style zero 3\npair_coeff * *\nrun 0\npair_style mlip\npair_coeff * * {model} Na Cl"
    ),
    "thermo_modify and pair_modify": Deck(rocksalt(), "thermo_modify norm yes\nrun 0\nthermo_modify norm no"),
    "neigh_modify": Deck(rocksalt(), "neighbor 3.0 nsq\nneigh_modify one 10000 page 100000\nrun 0"),
    "exclude one atom from everything": Deck(
        rocksalt(), "group gone id 4\nneigh_modify exclude group gone all", absent=(4,), ranks=ON_4_RANKS
    ),
    "gcmc": Deck(
        rocksalt((2, 1, 1)),
        "group cl type 2\nfix 1 cl gcmc 1 8 0 2 34 3000 -8.0 0.5 full_energy overlap_cutoff 1.0\nrun 10\nunfix 1\n"
        "neigh_modify exclude none",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tiny, toy_local, toy_halo):
    return {"tiny": tiny, "local": toy_local, "halo": toy_halo}


@pytest.fixture(scope="module")
def outcomes(models, tmp_path_factory):
    """Outcome of a table on some ranks; computed once."""
    done = {}

    def get(table, ranks):
        key = (id(table), ranks)
        if key not in done:
            decks = {name: deck for name, deck in table.items() if ranks in deck.ranks}
            decks = {
                name: Deck(**{**deck.__dict__, "body": deck.body.replace("{model}", str(models[deck.model]))})
                for name, deck in decks.items()
            }
            plain = {re.sub(r"\W+", "_", name): deck for name, deck in decks.items()}
            found = run_decks(plain, models, tmp_path_factory.mktemp("decks"), ranks)
            done[key] = dict(zip(decks, found.values(), strict=True))
        return done[key]

    return get


def cases(table):
    return [pytest.param(name, ranks, id=f"{name}, {ranks}") for name, deck in table.items() for ranks in deck.ranks]


def check_against_ase(outcome, deck, path):
    if isinstance(outcome, LAMMPSError):
        raise outcome
    assert isinstance(outcome, Outcome)
    if deck.every < 1000:
        assert len(outcome.frames) >= 2
        for frame in outcome.frames:
            truth = ase_engine.evaluate(path, frame.atoms)
            np.testing.assert_allclose(frame.energies, truth.atomic_energies, atol=FLOAT64_ROTATED)
    last = outcome.last
    seen = ~np.isin(last.ids, deck.absent)
    assert seen.sum() == len(last.ids) - len(deck.absent)
    truth = ase_engine.evaluate(path, last.atoms[seen])
    assert outcome.energy == pytest.approx(truth.energy, abs=FLOAT64_SUM * len(last.atoms))
    np.testing.assert_allclose(last.energies[seen], truth.atomic_energies, atol=FLOAT64_ROTATED)
    np.testing.assert_allclose(last.forces[seen], truth.forces, atol=FLOAT64_ROTATED)
    assert not last.forces[~seen].any()
    if last.atoms.pbc.all():
        np.testing.assert_allclose(outcome.stress, truth.stress, atol=FLOAT64_ROTATED)
    # Both per-atom forms sum to the global virial; bar Å³ are a millionth of an eV.
    np.testing.assert_allclose(outcome.centroid, outcome.virial, atol=FLOAT64_ROTATED * LAMMPS_METAL_NKTV2P)
    np.testing.assert_allclose(outcome.pairwise, outcome.virial, atol=FLOAT64_ROTATED * LAMMPS_METAL_NKTV2P)
    return truth


@pytest.mark.parametrize(("name", "ranks"), cases(PARITY))
def test_parity(name, ranks, outcomes, models):
    outcome = outcomes(PARITY, ranks)[name]
    truth = check_against_ase(outcome, PARITY[name], models[PARITY[name].model])
    if "only" not in name and "primitive" not in name:
        assert np.abs(truth.forces).max() > FORCE_SIGNAL
        assert np.abs(outcome.virial).max() > 1e5


@pytest.mark.parametrize(("name", "ranks"), cases(RUNS))
def test_run(name, ranks, outcomes, models):
    outcome = outcomes(RUNS, ranks)[name]
    check_against_ase(outcome, RUNS[name], models[RUNS[name].model])
    last = outcome.last
    n = len(RUNS[name].atoms)
    if name == "deposit":
        assert len(last.atoms) == n + 5
    elif name == "delete_atoms":
        assert len(last.atoms) == 2 * 8 - 3
        assert {3, 7, 12}.isdisjoint(last.ids)
    elif name.startswith(("npt", "deform", "box/relax", "change_box")):
        assert np.abs(last.atoms.cell.lengths() - RUNS[name].atoms.cell.lengths()).max() > 1e-3
    elif name == "gcmc":
        assert not np.array_equal(np.sort(last.ids), np.arange(1, n + 1)), "no exchange was accepted"
    elif "set type" in name or name == "atom/swap":
        assert not np.array_equal(outcome.frames[0].types, outcome.frames[-1].types)
    elif name == "minimize":
        assert np.abs(last.forces).max() < 0.2
    elif "nve" in name or "balance" in name or name == "langevin":
        start, end = outcome.frames[0].atoms, last.atoms
        assert np.abs(end.positions - start.positions).max() > 0.02
