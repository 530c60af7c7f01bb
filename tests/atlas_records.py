"""An atlas of three models whose numbers are known, as it is stored."""

from mlip_deploy.comparison.audit import Flag
from mlip_deploy.datasheets.evidence import Atlas, Evidence, Found, Identity, Number, Relatives, Sheet
from mlip_deploy.datasheets.pieces import PIECES
from mlip_deploy.report.content import Curve, Series

COST, ERROR = "time per atom and step, silicon, 512 atoms", "force component, mean absolute error"
MODELS = {
    # µs, (eV/Å, its interval), elements
    "fast": (10.0, 0.30, (0.25, 0.35), ["Si", "O"]),
    "exact": (100.0, 0.10, (0.09, 0.12), ["Si", "Fe"]),
    "neither": (200.0, 0.12, (0.11, 0.13), ["Si"]),
}


def sheet(name: str, long: str = "") -> Sheet:
    """One of the models, with all pieces but two missing; `long` is added where a text may be long."""
    cost, error, interval, elements = MODELS[name]
    found = {
        "cost": Found(
            said=f"it costs {cost:g} µs{long}",
            numbers=[Number(quantity=COST, value=cost, unit="µs", better="low")],
            curves=[curve("Cost of a step", [cost, cost])],
        ),
        "forces": Found(
            said=f"forces are off by {error:g} eV/Å",
            numbers=[Number(quantity=ERROR, value=error, unit="eV/Å", interval=interval, n=9, better="low")],
            details=[Number(quantity=f"detail {k}{long}", value=k) for k in range(20)],
            notes=[f"a note{long}"],
        ),
    }
    return Sheet(
        identity=Identity(
            file=f"{name}.mlip.pt",
            content_sha256="0" * 64,
            megabytes=1.0,
            name=name,
            family="toy",
            source_sha256="0" * 64,
            licence="MIT",
            citation=f"Nobody{long}",
            dtype="float32",
            parallel="local",
            elements=elements,
            cutoff=4.0,
            interaction_range=4.0,
            energy_frame=f"PBE{long}",
            fixed={},
            settings=[],
            outputs=[],
            domain="none",
            validation="none",
        ),
        machine={"processor": "a processor", "instruction_set": "AVX2", "cores": 2, "torch": "2.13.0"},
        versions={"torch": "2.13.0"},
        threads=1,
        evidence=[
            Evidence(
                piece=piece.name,
                question=piece.question,
                measures=piece.measures,
                not_tested=piece.not_tested,
                status="measured" if piece.name in found else "missing",
                reason="" if piece.name in found else f"nobody looked{long}",
                found=found.get(piece.name),
                seconds=60.0,
            )
            for piece in PIECES.values()
        ],
    )


def curve(title: str, y: list[float]) -> Curve:
    """Of a model, beside a reference that all models share."""
    known = Series(label="known", x=[1.0, 2.0], y=[1.0, 1.0])
    return Curve(title=title, x_label="x", y_label="y", series=[Series(label="", x=[1.0, 2.0], y=y), known])


def atlas(long: str = "") -> Atlas:
    """All three."""
    flag = Flag(reference="crystals", frame=f"a crystal{long}", quantity="energy", unit="eV/atom",
                label_against_models=0.5, models_among_themselves=0.1)  # fmt: skip
    relatives = Relatives(family="toy", models=list(MODELS), forces=[[0.0, 1.0, 2.0]] * 3, structures=9)
    return Atlas(
        sheets=[sheet(name, long) for name in MODELS],
        failures={"fast.mlip.pt": f"the process ended{long}"},
        relatives=[relatives],
        flags=[flag],
    )
