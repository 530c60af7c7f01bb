"""`mlip deploy lammps` for Debian 13's LAMMPS: 4 February 2025, Open MPI 5, without the PLUGIN package.

Everything runs inside Debian's packages (cmake/debian_lammps.sh): its compiler, its MPI, its LAMMPS. Python and torch
are those of this environment.
"""

import re
import subprocess
import sys

import pytest
from lammps_decks import Deck
from test_lammps_decks import rocksalt
from tolerances import FLOAT64_SUM

from mlip_deploy.ase import MLIPCalculator

SHARED = ("/proc", "/dev", "/sys", "/tmp")
ENTER = """
set -e
root=$1; shift
for folder in $SHARED; do mkdir -p "$root$folder"; mount --rbind "$folder" "$root$folder"; done
exec /usr/sbin/chroot "$root" "$@"
"""


@pytest.fixture(scope="module")
def debian(request):
    root = request.config.getoption("--debian-root")
    if root is None:
        pytest.skip("needs Debian 13's packages: make test-debian-lammps")
    assert sys.base_prefix != "/usr", "needs a Python of its own folder, as pyenv's, beside Debian 13's in /usr"
    # This environment is seen in there under its own name.
    shared = " ".join([*SHARED, sys.prefix, sys.base_prefix])

    def run(*command, folder):
        environment = {"PATH": "/usr/bin", "HOME": "/tmp", "SHARED": shared}
        # Open MPI wants to be told that a container's root is meant
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}
        inside = ["/usr/bin/env", "-C", folder, *command]
        done = subprocess.run(
            ["/usr/bin/unshare", "--map-root-user", "--mount", "/bin/sh", "-c", ENTER, "sh", root, *map(str, inside)],
            env=environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def deployed(debian, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployed")
    mlip = [sys.executable, "-m", "mlip_deploy.cli.main"]
    status, printed = debian(*mlip, "deploy", "lammps", "-o", folder, folder=folder)
    assert status == 0, printed
    return folder, printed


def test_doctor_says_what_debian_has(debian, tmp_path):
    status, printed = debian(sys.executable, "-m", "mlip_deploy.cli.main", "doctor", "--lammps", folder=tmp_path)
    assert status == 0, printed
    for words in (
        "4 Feb 2025, /usr/bin/lmp",
        "PLUGIN       no: start lmp-mlip",
        "MPI          Open MPI v5",
        "integers     LAMMPS_SMALLBIG",
        "mlip deploy lammps --lammps-root /usr",
    ):
        assert words in printed


def test_the_launcher_is_what_the_user_is_told_to_start(deployed):
    folder, printed = deployed
    assert "tried     one atom's energy is right, before and after `clear`" in printed
    assert f"mpirun -n 4 {folder / 'lmp-mlip'} -in run.in" in printed
    assert "plugin load" not in printed


@pytest.mark.parametrize("ranks", [1, 2])
def test_energies_and_forces_are_those_of_ase(ranks, debian, deployed, tiny, tmp_path):
    (tmp_path / "run.in").write_text(Deck(rocksalt()).script("d", tiny, tmp_path))
    program = [deployed[0] / "lmp-mlip", "-in", "run.in", "-log", "none"]
    launch = [] if ranks == 1 else ["mpirun", "--oversubscribe", "-n", ranks]
    status, printed = debian(*launch, *program, folder=tmp_path)
    assert status == 0, printed
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(tiny)
    energy = float(re.search(r"^DECK d PE (\S+)$", printed, flags=re.MULTILINE)[1])
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=FLOAT64_SUM * len(atoms))


def test_an_error_ends_all_ranks(debian, deployed, tmp_path):
    (tmp_path / "run.in").write_text("units metal\nread_data none.data\n")
    program = [deployed[0] / "lmp-mlip", "-in", "run.in", "-log", "none"]
    status, printed = debian("mpirun", "--oversubscribe", "-n", "2", *program, folder=tmp_path)
    assert status != 0
    assert "Cannot open file none.data" in printed
