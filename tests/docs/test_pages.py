"""The pages of docs/ are run as they stand there, with a small model in place of a published one."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pages
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from conftest import EXAMPLES, Artifacts

import mlip_deploy
from mlip_deploy import MLIPCalculator
from mlip_deploy.artifact.contract import EnergyFrame
from mlip_deploy.artifact.gate import write_validation_record
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.validation_record import ValidationRecord, release
from mlip_deploy.cli.main import parser
from mlip_deploy.validation.properties import recipes

pytestmark = pytest.mark.slow

ELSEWHERE = {
    "tutorials/active-learning.md": "engines/test_active_learning.py",
    "extending.md": "families/test_families_page.py",
    "families.md": "families/test_families_page.py",
    "long-range.md": "engines/test_long_range.py",
    "lammps.md": "engines/test_lammps_docs.py",
    "openmm.md": "engines/test_openmm_page.py",
    "prepare.md": "engines/test_prepare.py",
    "python.md": "unit/test_python_page.py",
    "trust.md": "engines/test_grades.py",
    "validate.md": "validate/test_validate_page.py",
}
"""Pages whose code other tests run."""
ONLY_PARSED = {"atlas.md", "conform.md", "export.md"}
"""Pages of commands that take long, or other models: test_commands_are_taken reads them."""
CHECK = "mlip check model.mlip.pt"
"""What the page start.md runs already is left out of other pages, to save time."""
EXPORT = "mlip export sevennet 7net-0 -o"
PUBLISHED = EnergyFrame(
    functional="PBE (MPtrj)", hubbard_u="MP2020 values", corrections="none", dispersion="none"
).declaration()


def test_start(tiny: Path, tmp_path: Path) -> None:
    pages.run("start.md", tmp_path, {EXPORT: f"ln -s {tiny}"})
    assert (tmp_path / "salt" / "final.data").exists()
    assert (tmp_path / "salt-openmm" / "thermo.csv").exists()


def test_readme(tiny: Path, tmp_path: Path) -> None:
    """Its Python; its commands are those of start.md."""
    (tmp_path / "7net-0.mlip.pt").symlink_to(tiny)
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    salt.set_array("residuenumbers", np.arange(1, 9))  # OpenMM takes atoms of one name in one residue for one atom
    salt.write(tmp_path / "salt.pdb")
    code = "".join(code for language, _, code in pages.blocks("../README.md") if language == "python")
    assert "simulation.step(1000)" in code
    code = code.replace("step(1000)", "step(5)") + "print(system.getNumParticles(), 'particles')\n"
    assert "8 particles" in pages.use([("python", code)], tmp_path)


def test_constant_pressure(tiny: Path, tmp_path: Path) -> None:
    short = {EXPORT: f"ln -s {tiny}", "--time 4ps": "--time 60fs"}
    printed = pages.run("tutorials/lammps-npt.md", tmp_path, short)
    assert re.search(r"^\d+ ± \d+ K, a = \d\.\d{4} ± \S+ Å$", printed, flags=re.MULTILINE), printed


def test_a_molecule_in_water(tiny: Path, tmp_path: Path) -> None:
    """The parts of the energy add up, and terms inside the molecule do not count, whether the file has them or not."""
    shutil.copy(EXAMPLES / "openmm" / "methanol.pdb", tmp_path)
    short = {"mlip export ani 2x -o": f"ln -s {tiny}", "step(2000)": "step(4)", "maxIterations=100": "maxIterations=5"}
    printed = pages.run("tutorials/openmm-solute.md", tmp_path, short)
    number = r"(-?\d[\d.e+-]*) kJ/mol"
    total = float(re.search(rf"^total {number}", printed, flags=re.MULTILINE).group(1))
    parts = re.findall(rf"^ +(\w+) {number}$", printed, flags=re.MULTILINE)
    assert {"MLIPForce", "NonbondedForce"} <= {name for name, _ in parts}
    assert total == pytest.approx(sum(float(value) for _, value in parts), abs=1e-3)


def test_fine_tuned(artifacts: Artifacts, tmp_path: Path) -> None:
    """Labels that the tuned model itself gives. A pass is recorded without the minutes that physics takes."""
    from models import tiny_sevennet_checkpoint

    shutil.copy(artifacts.checkpoint(), tmp_path / "tuned.pth")
    tiny_sevennet_checkpoint(tmp_path / "base.pth", seed=1)
    crystal, random = bulk("NaCl", "rocksalt", a=5.2, cubic=True), np.random.default_rng(0)
    crystal.write(tmp_path / "salt.cif")
    calculator = MLIPCalculator(artifacts.tiny("float64"))
    for name in ("train", "test"):
        frames = []
        for _ in range(3):
            atoms = crystal.copy()
            atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
            energy, forces = calculator.get_potential_energy(atoms), calculator.get_forces(atoms)
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            frames.append(atoms)
        write(tmp_path / f"{name}.extxyz", frames)
    sound = Artifact(shutil.copy(artifacts.tiny("float64"), tmp_path / "sound.mlip.pt"))
    versions = {package: release(package) for package in ("torch", "lammps", "openmm")}
    sound_record = {"content_sha256": sound.content_sha256(), "engines": ["lammps"], "versions": versions}
    suites = {"suites": ["fidelity", "physics"], "elements": ["Na", "Cl"]}
    write_validation_record(sound, ValidationRecord(verdict="pass", **sound_record, **suites))
    frame = f'--energy-frame "{PUBLISHED}"'
    short = {
        EXPORT: f"mlip export sevennet base.pth {frame} -o",
        "--base 7net-0": frame,
        "mlip check tuned.mlip.pt": "",
        "mlip validate tuned.mlip.pt --elements Na,Cl --record -o validation": "cp sound.mlip.pt tuned.mlip.pt",
        "--time 1ps": "--time 10fs",
    }
    pages.run("tutorials/fine-tuned.md", tmp_path, short)
    log = (tmp_path / "run" / "log.lammps").read_text()
    assert re.search(r"^pair_style +mlip strict yes", log, flags=re.MULTILINE)
    assert "  validated fidelity, physics in lammps" in log


def test_dispersion(tiny: Path, tmp_path: Path) -> None:
    """LAMMPS's D3, that of ASE and that of OpenMM give one energy."""
    (tmp_path / "7net-0.mlip.pt").symlink_to(tiny)
    printed = pages.run("dispersion.md", tmp_path)
    ase, openmm = (
        float(re.search(rf"^{engine} (\S+) eV$", printed, flags=re.MULTILINE).group(1)) for engine in ("ASE", "OpenMM")
    )
    lammps = float(re.search(r"^ +0 +0 +(\S+)", printed, flags=re.MULTILINE).group(1))
    assert openmm == pytest.approx(ase, abs=1e-9)
    # two codes, with constants of their own
    assert lammps == pytest.approx(ase, abs=2e-5)
    alone = MLIPCalculator(tiny).get_potential_energy(shaken_salt())
    assert ase < alone - 1.0


def shaken_salt():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """With a model under two names, salt.data and an input."""
    for name in ("7net-0.mlip.pt", "model.mlip.pt"):
        (tmp_path / name).symlink_to(tiny)
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    salt.write(tmp_path / "salt.data", format="lammps-data", specorder=["Na", "Cl"], masses=True)
    model = "pair_style mlip\npair_coeff * * model.mlip.pt Na Cl\n"
    (tmp_path / "run.in").write_text(f"units metal\nread_data salt.data\n{model}run 0\n")
    return tmp_path


def test_moving(folder: Path) -> None:
    pages.run("moving.md", folder, {f"{EXPORT} model.mlip.pt": "", CHECK: ""})
    assert "model     tiny" in (folder / "log.lammps").read_text()


def test_report_a_bug(folder: Path) -> None:
    """What a report holds; the other block is that of validate.md."""
    commands = [code for _, _, code in pages.blocks("report-a-bug.md")]
    assert "mlip validate model.mlip.pt" in commands[1]
    assert '"torch"' in pages.use([("sh", commands[0])], folder)


def test_a_recipe_of_your_own(tmp_path: Path) -> None:
    """The recipe of reference-data.md loads; its commands need data sets or hours."""
    (code,) = (code for language, _, code in pages.blocks("reference-data.md") if language == "python")
    (tmp_path / "mine.py").write_text(code)
    assert "stacking-fault" in {recipe.name for recipe in recipes(tmp_path)}


def test_heat_flux(folder: Path) -> None:
    minutes = "mlip validate lj.mlip.pt --suites properties --elements Ar -o argon/"
    pages.run("heat-flux.md", folder, {"python examples/lennard_jones.py": "", minutes: ""})


def test_committee(tiny: Path, artifacts: Artifacts, tmp_path: Path) -> None:
    for name, path in (("a", tiny), ("b", artifacts.short()), ("c", tiny)):
        (tmp_path / f"{name}.mlip.pt").symlink_to(path)
    pages.run("committee.md", tmp_path, {f"{CHECK.replace('model', 'mean')}\n": ""})


def test_guard(tiny: Path, tmp_path: Path) -> None:
    frames = [bulk("NaCl", "rocksalt", a=5.2, cubic=True) for _ in range(20)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
    mlip_deploy.fit_domain(tiny, [frames], output=tmp_path / "model.mlip.pt")
    assert "grade" in pages.run("guard.md", tmp_path)


def test_clusters(folder: Path) -> None:
    pages.run("clusters.md", folder, {"-n 4": "-n 2"})


COMMAND = re.compile(r"^(?:\$ |    )?(mlip (?:\w+) .*)$", flags=re.MULTILINE)
PAGES = sorted(path.relative_to(pages.DOCS).as_posix() for path in pages.DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_commands_are_taken(page: str) -> None:
    """Every line that begins with `mlip` has options that exist, and what MACE cannot do without."""
    text = (pages.DOCS / page).read_text().replace("\\\n", " ")
    for line in COMMAND.findall(text):
        words = shlex.split(re.split(r" (?:>|\||&&) ", line)[0], comments=True)
        if "..." in words or "--list" in words:
            continue
        try:
            options = parser().parse_args(words[1:])
        except SystemExit:
            pytest.fail(f"{page}: {line}")
        if options.command == "export" and getattr(options, "family", "") == "mace":
            assert options.trust_checkpoint, f"{page}: a MACE is a pickled module: {line}"


def test_links_into_figures_that_are_pages() -> None:
    """mkdocs follows links between its own pages alone."""
    links = {
        link
        for page in PAGES
        for link in re.findall(r"\]\((figures/\S+?\.html#\S+?)\)", (pages.DOCS / page).read_text())
    }
    assert links
    for link in links:
        file, _, place = link.partition("#")
        assert f'id="{place}"' in (pages.DOCS / file).read_text(), link


def test_the_api_page_has_every_public_name() -> None:
    named = re.findall(r"^::: mlip_deploy\.(\w+)$", (pages.DOCS / "api.md").read_text(), flags=re.MULTILINE)
    assert sorted(named) == sorted(set(mlip_deploy.__all__) - {"__version__"})


def test_workflows_run_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([\w -]+):", (pages.ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    targets = {word for line in targets for word in line.split()}
    workflows = list((pages.ROOT / ".github" / "workflows").glob("*.yml"))
    assert len(workflows) >= 3
    for workflow in workflows:
        used = re.findall(r"make ([\w-]+)", re.sub(r"^#.*", "", workflow.read_text(), flags=re.MULTILINE))
        assert used
        assert set(used) <= targets, workflow.name


def literals(path: Path) -> str:
    """A source's text with neighbouring strings joined, as the compiler joins them."""
    return re.sub(r'"\s*(?:\+\s*)?f?"', "", path.read_text())


def test_messages_are_those_of_the_sources() -> None:
    """What troubleshooting.md quotes, but for what it says is of LAMMPS or OpenMM."""
    roots = (pages.ROOT / "csrc", pages.ROOT / "python")
    sources = [literals(path) for root in roots for path in root.rglob("*") if path.suffix in (".cpp", ".h", ".py")]
    table = (pages.DOCS / "troubleshooting.md").read_text().partition("## By message")[2]
    cells = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    assert len(cells) > 40
    for cell in cells:
        if "'s own)" not in cell:
            for quoted in re.findall(r"`([^`]+)`", cell):
                assert any(quoted in source for source in sources), f"no message has '{quoted}'"


def test_every_page_is_run() -> None:
    """Blocks of code on pages are run here or by the test that is named for the page."""
    here = set(re.findall(r'"([\w/-]+\.md)"', Path(__file__).read_text().partition("def test_start")[2]))
    for page in PAGES:
        languages = {language for language, _, _ in pages.blocks(page)} & {"sh", "python", "lammps"}
        if languages and page not in here and (page not in ONLY_PARSED or "python" in languages):
            assert page in ELSEWHERE, f"{page}: no test runs its blocks of {languages}"
            assert Path(page).name in (pages.ROOT / "tests" / ELSEWHERE[page]).read_text()
