"""The energy frame of a user's checkpoint: said at export, or inherited from the model that it was fine-tuned from."""

import pytest
from conftest import mlip

from mlip_deploy.artifact.contract import EnergyFrame
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions

OWN = EnergyFrame(functional="PBE (mine)", hubbard_u="none", corrections="none", dispersion="D3(BJ)")
SEVENNET_0 = "PBE (MPtrj), Hubbard U: MP2020 values, corrections: none, dispersion: none"


@pytest.fixture(scope="module")
def tuned():
    """A checkpoint file with 7net-0's architecture, of which nothing is published."""
    from sevenn.util import load_checkpoint

    return str(load_checkpoint("7net-0").checkpoint_path)


def frame_of(source, **options):
    return FAMILIES["sevennet"].adapt(str(source), ExportOptions(**options)).energy_frame


def test_a_file_has_the_frame_that_is_said(tuned):
    assert frame_of(tuned) == EnergyFrame.unknown()
    assert frame_of(tuned, energy_frame=OWN) == OWN
    assert frame_of(tuned, base="7net-0").describe() == SEVENNET_0


def test_what_contradicts_is_refused(tuned, tiny, artifacts):
    with pytest.raises(MLIPError, match=r"--energy-frame says PBE \(mine\).*known to be PBE \(MPtrj\)"):
        frame_of("7net-0", energy_frame=OWN)
    with pytest.raises(MLIPError, match=r"both say the energy frame\. Leave one of them out"):
        frame_of(tuned, energy_frame=OWN, base="7net-0")
    with pytest.raises(MLIPError, match="--base 7net-0 has a cutoff of 5 Å and 5 layers, the checkpoint 4 Å and 3"):
        frame_of(artifacts.checkpoint(), base="7net-0")
    with pytest.raises(MLIPError, match=r"is unknown too .*in place of --base: --energy-frame"):
        frame_of(artifacts.checkpoint(), base=str(tiny))


@pytest.mark.slow
def test_on_the_command_line(artifacts, tmp_path):
    source, output = artifacts.checkpoint(), tmp_path / "tuned.mlip.pt"
    wrong = mlip("export", "sevennet", source, "-o", output, "--energy-frame", "functional=PBE")
    assert wrong.returncode != 0
    assert "needs the terms functional, hubbard_u, corrections, dispersion" in " ".join(wrong.stderr.split())
    done = mlip("export", "sevennet", source, "-o", output, "--energy-frame", OWN.declaration())
    assert done.returncode == 0, done.stderr
    assert Artifact(output).contract.energy_frame == OWN
    done = mlip("export", "sevennet", source, "-o", tmp_path / "again.mlip.pt", "--base", output)
    assert done.returncode == 0, done.stderr
    assert Artifact(tmp_path / "again.mlip.pt").contract.energy_frame == OWN
