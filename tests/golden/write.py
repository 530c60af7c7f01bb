"""Write the golden files of a release, once: `python tests/golden/write.py 0.1.0`.

Two small artifacts, and what the original models compute for some of the structures. Every later version loads them,
or refuses them with the message that docs/compatibility.md gives (tests/unit/test_golden.py). They are never written
again: a change of the format that breaks them is a change of the policy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import toy_models
from archives import rewritten
from models import tiny_sevennet_checkpoint

from mlip_deploy.artifact.reader import Artifact, file_sha256
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.write import write_artifact

LARGEST = 60_000  # bytes
STRUCTURES = ("odd number of atoms", "molecule without periodicity")


def plain_float64(path: Path) -> None:
    """Three rounds of messages in torch's own operators, for ghosts out to the interaction range."""
    toy_models.export(path, "halo", "float64")


def fused_float32(path: Path) -> None:
    """A SevenNet of two layers on mlip's operators, for ghosts whose features are exchanged."""
    checkpoint = tiny_sevennet_checkpoint(
        path.with_suffix(".pth"),
        layers=2,
        channel=2,
        lmax=1,
        irreps_manual=["2x0e", "2x0e+1x1e", "2x0e"],
        weight_nn_hidden_neurons=[4, 4],
    )
    options = ExportOptions(elements=("Na", "Cl"))
    write_artifact(FAMILIES["sevennet"].adapt(str(checkpoint), options), path, "float32", lambda message: None)
    checkpoint.unlink()


def without_tracebacks(contents: dict[str, bytes]) -> None:
    """Less what torch keeps for them: a quarter of so small a file, and the folders of the machine that wrote it."""
    for name in [name for name in contents if name.endswith(".debug_pkl")]:
        del contents[name]


def write(folder: Path) -> None:
    folder.mkdir(parents=True)
    expected = {}
    for name, make in {"plain-float64.mlip.pt": plain_float64, "fused-float32.mlip.pt": fused_float32}.items():
        path, whole = folder / name, folder / f"whole-{name}"
        make(whole)
        rewritten(whole, path, without_tracebacks)
        whole.unlink()
        assert path.stat().st_size < LARGEST, f"{path} has {path.stat().st_size} bytes"
        fixtures = Artifact(path).fixtures()
        chosen = [entry.model_dump() for entry in fixtures.structures if entry.name in STRUCTURES]
        assert len(chosen) == len(STRUCTURES), [entry.name for entry in fixtures.structures]
        expected[name] = {"sha256": file_sha256(path), "original": fixtures.reference, "structures": chosen}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    write(Path(__file__).parent / sys.argv[1])
