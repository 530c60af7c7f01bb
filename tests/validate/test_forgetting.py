"""Fine-tuning helps on its own data and is caught forgetting elsewhere: torch tunes a small SevenNet here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from conftest import Artifacts, mlip
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import SevenNetCalculator
from sevenn.train.dataload import unlabeled_atoms_to_graph
from sevenn.util import load_checkpoint

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.reference_data.datasets import PBE
from mlip_deploy.validation.case import Check, Context
from mlip_deploy.validation.reference import forgetting
from mlip_deploy.validation.report.summary import page
from mlip_deploy.validation.run import Validation, validate

FRAME = "functional=PBE,hubbard_u=none,corrections=none,dispersion=none"
STEPS, RATE = 20, 0.01
SHIFT = 0.8  # eV/atom, of the energies that the model is tuned on
STIFFER = 1.4  # the factor of their forces
NOISE = 0.02  # eV/atom and eV/Å, of all labels


def frames(symbols: tuple[str, str], seed: int) -> list[Atoms]:
    random = np.random.default_rng(seed)
    crystal = bulk("".join(symbols), "rocksalt", a=5.2, cubic=True)
    found = []
    for _ in range(3):
        atoms = crystal.copy()
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        found.append(atoms)
    return found


def labelled(checkpoint: Path, structures: list[Atoms], shift: float, stiffer: float, path: Path) -> Path:
    """What the model before predicts with a little noise: energies shifted (eV/atom), forces larger by a factor."""
    random = np.random.default_rng(9)
    calculator = SevenNetCalculator(checkpoint, device="cpu")
    labels = []
    for atoms in structures:
        atoms = atoms.copy()
        atoms.calc = calculator
        energy = atoms.get_potential_energy() + len(atoms) * (shift + random.normal(scale=NOISE))
        forces = stiffer * atoms.get_forces() + random.normal(scale=NOISE, size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        atoms.info["energy_frame"] = FRAME
        labels.append(atoms)
    write(path, labels, format="extxyz")
    return path


def tuned(checkpoint: Path, labels: list[Atoms], path: Path) -> Path:
    """The checkpoint after a few steps of Adam on energies per atom and forces, every weight free."""
    loaded = load_checkpoint(str(checkpoint))
    model = loaded.build_model().train()
    model.set_is_batch_data(False)
    graphs = [unlabeled_atoms_to_graph(atoms, loaded.config["cutoff"]) for atoms in labels]
    energies = [torch.tensor(atoms.get_potential_energy() / len(atoms)) for atoms in labels]
    forces = [torch.tensor(atoms.get_forces(), dtype=torch.float32) for atoms in labels]
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.zeros(())
        for graph, energy, force in zip(graphs, energies, forces, strict=True):
            found = model(AtomGraphData.from_numpy_dict(graph))
            loss = loss + (found["inferred_total_energy"] / len(force) - energy) ** 2
            loss = loss + ((found["inferred_force"] - force) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    torch.save({**torch.load(checkpoint, weights_only=False), "model_state_dict": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def made(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both artifacts, the data that one was tuned on, others of the same kind, and others of other elements."""
    folder, checkpoint = tmp_path_factory.mktemp("tuning"), artifacts.checkpoint()
    salt = frames(("Na", "Cl"), seed=1)
    found = {
        "base": artifacts.tiny("float64"),
        "tuning": labelled(checkpoint, salt, SHIFT, STIFFER, folder / "tuning.extxyz"),
        "alike": labelled(checkpoint, frames(("Na", "Cl"), seed=2), SHIFT, STIFFER, folder / "alike.extxyz"),
        "other": labelled(checkpoint, frames(("Si", "O"), seed=3), 0.0, 1.0, folder / "other.extxyz"),
    }
    stored = tuned(checkpoint, read(found["tuning"], ":"), folder / "tuned.pth")
    return found | {"tuned": artifacts.export(str(stored), "float64")}


def artifact(path: Path) -> Artifact:
    found = Artifact(path)
    found.contract = found.contract.model_copy(update={"energy_frame": PBE})
    return found


def run(made: dict[str, Path], directory: Path, model: str) -> Validation:
    context = Context(
        artifact=artifact(made[model]),
        engine="ase",
        directory=directory,
        base=artifact(made["base"]),
        tuned_on=[str(made["tuning"])],
        reference=[str(made["alike"]), str(made["other"])],
    )
    return validate(context, ["reference"])


def ratios(validation: Validation) -> dict[tuple[str, str], Check]:
    return {
        (outcome.case, check.quantity.split(",")[0]): check
        for outcome in validation.outcomes
        for check in outcome.checks
        if "over zero-shot" in check.quantity
    }


def test_tuning_helps_on_its_own_kind_and_forgets_the_rest(made: dict[str, Path], tmp_path: Path) -> None:
    validation = run(made, tmp_path, "tuned")
    found = ratios(validation)
    verdicts = {key: check.verdict for key, check in found.items()}
    for quantity in ("energy", "force component"):
        assert verdicts[("tuning", quantity)] == "pass"
        assert verdicts[("alike", quantity)] == "pass"
        assert verdicts[("other", quantity)] == "fail"
        assert found[("tuning", quantity)].value < 0.6
        assert found[("other", quantity)].value > 2.0
    assert "larger for 3 of 3 structures" in found[("other", "energy")].reason
    text = page(validation)
    assert "fine-tuned, zero-shot is tiny-float64.mlip.pt, against" in text
    assert "forgetting after fine-tuning (--base" not in text


def test_a_copy_has_learnt_nothing_and_forgotten_nothing(made: dict[str, Path], tmp_path: Path) -> None:
    verdicts = {key: check.verdict for key, check in ratios(run(made, tmp_path, "base")).items()}
    assert {verdict for (case, _), verdict in verdicts.items() if case == "tuning"} == {"fail"}
    assert {verdict for (case, _), verdict in verdicts.items() if case != "tuning"} == {"pass"}


def test_few_scattered_structures_do_not_count_as_forgetting() -> None:
    """Three of four structures become better, one much worse: the mean says 30 % more, its error as much."""
    before = np.array([1.0, 1.0, 1.0, 1.0])
    scattered = forgetting.compare(forgetting.GENERAL, "energy, MAE", before, np.array([0.9, 0.9, 0.9, 2.5]))
    everywhere = forgetting.compare(forgetting.GENERAL, "energy, MAE", before, np.array([1.3, 1.3, 1.31, 1.29]))
    assert scattered.value == pytest.approx(everywhere.value)
    assert (scattered.verdict, everywhere.verdict) == ("pass", "fail")
    exact = forgetting.compare(forgetting.GENERAL, "energy, MAE", 0 * before, before)
    assert (exact.verdict, exact.value) == ("not-applicable", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--suite", "reference", "--tuned-on", "a.extxyz"],
            "--tuned-on a.extxyz needs the model before it was tuned.",
        ),
        (["--suite", "reference", "--base", "MODEL"], "is compared on reference data. Add: --tuned-on FILE"),
        (["--suite", "physics", "--base", "MODEL", "--reference", "wbm"], "nothing reads it. Add: --suites reference"),
    ],
)
def test_wrong_input_is_named(arguments: list[str], message: str, tiny: Path, tmp_path: Path) -> None:
    words = [str(tiny) if word == "MODEL" else word for word in arguments]
    done = mlip("validate", tiny, *words, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
