"""Wrong inputs as a table: deck, expected message. Also what happens when one rank fails alone."""

import json
import re
import subprocess

import pytest
from test_lammps import deck
from test_lammps_decks import rocksalt

from mlip_deploy.engines.lammps import LAMMPSError, launcher, run

MODEL = 'pair_coeff * * "{path}" Na Cl'
HYBRID = 'pair_coeff * * mlip "{path}" Na Cl'
BONDS = "bond_style zero\nbond_coeff *\n"

NEGATIVE = {
    # the model and its elements
    "unknown element": (
        {"coeff": 'pair_coeff * * "{path}" Na Xx'},
        r"type 2 is 'Xx', not an element of tiny \(6 elements: H C O Na Si Cl\), see: mlip info .*or NULL if another",
    ),
    "too few elements": ({"coeff": 'pair_coeff * * "{path}" Na'}, r"found 1 element\(s\): Na for 2 atom type\(s\)"),
    "too many elements": ({"coeff": 'pair_coeff * * "{path}" Na Cl O'}, r"found 3 element\(s\): Na Cl O for 2 atom"),
    "no elements": ({"coeff": 'pair_coeff * * "{path}"'}, r"found 0 element\(s\) for 2 atom type\(s\)"),
    "no file": ({"coeff": "pair_coeff * *"}, r"pair_coeff: expected 'pair_coeff \* \* FILE.mlip.pt El1 El2"),
    "numbered types": ({"coeff": 'pair_coeff 1 2 "{path}" Na Cl'}, r"Pair_coeff must start with \* \*"),
    "all NULL": ({"coeff": 'pair_coeff * * "{path}" NULL NULL'}, "every atom type is NULL"),
    "NULL without another style": (
        {"coeff": 'pair_coeff * * "{path}" Na NULL'},
        "type 2 is NULL, but no other pair style handles it. Give it an element, or use 'pair_style hybrid'",
    ),
    "missing file": ({"coeff": "pair_coeff * * nothing.mlip.pt Na Cl"}, "no such file. Write one with: mlip export"),
    "a folder": ({"coeff": "pair_coeff * * . Na Cl"}, "is a folder, not an artifact"),
    "a text file": ({"coeff": "pair_coeff * * data.atomic Na Cl"}, "is not an artifact of mlip-deploy"),
    "a checkpoint": (
        {"coeff": "pair_coeff * * {checkpoint} Na Cl"},
        "is a PyTorch checkpoint, not an exported model. Export it first: mlip export",
    ),
    "no pair_coeff": ({"coeff": "# none"}, "[Aa]ll pair coeffs are not set|no model. Add: pair_coeff"),
    # options
    "unknown keyword": ({"settings": "gpu 1"}, "unknown keyword 'gpu'. Expected: pair_style mlip"),
    "keyword without value": ({"settings": "threads"}, "keyword 'threads' needs a value"),
    "threads not a number": ({"settings": "threads two"}, "Expected integer parameter instead of 'two'"),
    "no threads": ({"settings": "threads 0"}, "threads is 0, expected 1 or more"),
    "unknown device": ({"settings": "device tpu"}, "'tpu' is not one of cpu, cuda, cuda:N, auto"),
    "unknown precision": ({"settings": "precision half"}, "precision: 'half' is not one of full, tf32"),
    "TF32 on a CPU": ({"settings": "precision tf32"}, "precision: 'tf32' is for a GPU, and the model runs on the CPU"),
    # the rest of the input
    "units lj": ({"units": "lj"}, "works with 'units metal', real, si or electron, the input has 'units lj'"),
    "units cgs": ({"units": "cgs"}, "the input has 'units cgs'. Put 'units metal' at the top"),
    "the skin of units si": ({"units": "si"}, r"the neighbour skin is 1e\+07 Å.*Add: neighbor 1e-10 bin"),
    "newton off": ({"before": "newton off"}, "needs 'newton on'"),
    "two dimensions": ({"box": "dimension 2"}, "needs 'dimension 3'.* use 'boundary p p f'"),
    "no atom ids": ({"box": "atom_modify id no"}, "Remove 'atom_modify id no'"),
    "exclude types": ({"after": "neigh_modify exclude type 1 2"}, "'neigh_modify exclude type' hides.* exclude none"),
    "exclude molecules": (
        {"style": "full", "after": "neigh_modify exclude molecule/intra all"},
        "'neigh_modify exclude molecule' hides neighbours.*exclude none",
    ),
    "exclude two groups": (
        {"after": "group a id 1\ngroup b id 2\nneigh_modify exclude group a b"},
        "'neigh_modify exclude group' hides neighbours from the model. Add: neigh_modify exclude none",
    ),
    "include a group": (
        {"after": "group a id 1\natom_modify first a\nneigh_modify include a"},
        "'neigh_modify include' hides neighbours.*include all",
    ),
    "ghosts of one group": (
        {"after": "group a id 1 2\natom_modify first a\ncomm_modify group a"},
        "'comm_modify group' leaves ghosts out that the model needs. Add: comm_modify group all",
    ),
    "special bonds": (
        {"style": "bonded", "after": BONDS},
        "special_bonds hides 1-2 neighbours from the model.* Add: special_bonds lj/coul 1e-30 0 0 ",
    ),
    "special bonds, the rest of the line": (
        {"style": "bonded", "after": BONDS + "special_bonds lj 0 0 0.5 coul 0 0 0.8333 dihedral yes"},
        "special_bonds hides 1-2 .* Add: special_bonds lj 1e-30 0 0.5 coul 1e-30 0 0.8333 dihedral yes ",
    ),
    # hybrid styles
    "hybrid without overlay": (
        {"after": f"pair_style hybrid mlip zbl 2.0 3.5\n{HYBRID}\npair_coeff 1 2 zbl 11 17"},
        r"pairs of types 1 \(Na\) and 2 \(Cl\) go to another style .*Type: pair_style hybrid/overlay",
    ),
    "hybrid without overlay, like pairs": (
        {"after": f"pair_style hybrid mlip zbl 2.0 3.5\n{HYBRID}\npair_coeff 2 2 zbl 17 17"},
        r"pairs of types 2 \(Cl\) and 2 \(Cl\) go to another style",
    ),
    "hybrid/overlay without a pair": (
        {"after": f"pair_style hybrid/overlay mlip zbl 2.0 3.5\n{HYBRID}\npair_coeff 1 1 zbl 11 11\n"
                  "pair_coeff 2 2 zbl 17 17\npair_coeff 1 2 none"},
        r"pairs of types 1 \(Na\) and 2 \(Cl\) .*Remove 'pair_coeff 1 2 none'",
    ),
    "the style twice": (
        {"after": 'pair_style hybrid mlip mlip\npair_coeff * * mlip 1 "{path}" Na Cl\n'
                  'pair_coeff * * mlip 2 "{path}" Na NULL'},
        r"pairs of types 1 \(Na\) and 1 \(Na\) go to another style",
    ),
    "hybrid, numbered types": (
        {"after": 'pair_style hybrid mlip zbl 2.0 3.5\npair_coeff 1 1 mlip "{path}" Na Cl'},
        r"(?i)pair_coeff must start with \* \*",
    ),
    "fix adapt": (
        {"after": "variable x equal 0.5\nfix 1 all adapt 1 pair mlip scale * * v_x"},
        "has no 'scale'.* type: pair_style hybrid/scaled v_NAME mlip",
    ),
    "halo with two ghost cutoffs": (
        {"model": "halo", "before": "neighbor 1.0 multi\ncomm_modify mode multi", "ranks": (2,)},
        "toy-halo runs in halo mode.* Remove 'comm_modify mode multi'",
    ),
    "pair interactions of a many-body model": (
        {"after": "compute g all group/group all\nthermo_style custom step c_g"},
        "(?i)pair style does not support compute group/group",
    ),
}  # fmt: skip

# Where a data file would be the first to complain.
BOX = """
region box block 0 5 0 5 -0.1 0.1
create_box 2 box
create_atoms 1 single 1 1 0
mass * 20.0
"""

# Runs every deck in one process, in which an error is an exception.
COLLECT = """
import json
from mlip_deploy.engines.lammps import instance
l = instance()
messages = {}
for name, script in json.load(open("decks.json")).items():
    l.command("clear")
    try:
        l.commands_string(script)
        messages[name] = "no error"
    except Exception as error:
        messages[name] = str(error)
if l.extract_setting("world_rank") == 0:
    json.dump(messages, open("messages.json", "w"))
"""


def python_command(ranks):
    return [*launcher(ranks)[: 3 if ranks > 1 else 0], launcher()[0]]


@pytest.fixture(scope="module")
def messages(tiny, toy_halo, artifacts, tmp_path_factory):
    done = {}

    def get(ranks):
        if ranks not in done:
            directory = tmp_path_factory.mktemp("refusals")
            scripts = {}
            for name, (options, _) in NEGATIVE.items():
                options = {"coeff": MODEL, **options}
                if ranks not in options.pop("ranks", (1, 2)):
                    continue
                path = {"tiny": tiny, "halo": toy_halo}[options.pop("model", "tiny")]
                options["coeff"] = options["coeff"].format(path=path, checkpoint=artifacts.checkpoint())
                options["after"] = options.get("after", "").format(path=path)
                box = options.pop("box", None)
                scripts[name] = deck(path, rocksalt(), directory, **options)
                if box:
                    scripts[name] = (
                        scripts[name]
                        .replace("read_data data.atomic", BOX)
                        .replace("units metal", f"units metal\n{box}")
                    )
            (directory / "decks.json").write_text(json.dumps(scripts))
            (directory / "collect.py").write_text(COLLECT)
            ended = subprocess.run(
                [*python_command(ranks), "collect.py"], cwd=directory, capture_output=True, text=True, timeout=300
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
            done[ranks] = json.loads((directory / "messages.json").read_text())
        return done[ranks]

    return get


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", NEGATIVE)
def test_refusal(case, ranks, messages):
    found = messages(ranks)
    if case not in found:
        assert ranks not in NEGATIVE[case][0]["ranks"]
        return
    assert re.search(NEGATIVE[case][1], found[case]), found[case]


@pytest.mark.parametrize("ranks", [1, 2])
def test_two_atoms_on_one_spot(ranks, tiny, tmp_path):
    """The rank that finds it takes the others down: lmp ends, with the message."""
    atoms = rocksalt()
    x, y, z = atoms.positions[0]
    # Of several ranks the first one to fail speaks, which may have the NaN from the rank that holds the atoms.
    words = r"(?s)not finite.*atoms [12] \(\w+\) and [12] \(\w+\) are 0\.000 Å apart" if ranks == 1 else "not finite"
    with pytest.raises(LAMMPSError, match=words):
        run(deck(tiny, atoms, tmp_path, after=f"set atom 2 x {x} y {y} z {z}"), tmp_path, ranks=ranks, timeout=120)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("moment", ["set-up", "run"])
def test_atoms_on_top_of_each_other_are_named(moment, ranks, tiny, tmp_path):
    """In each run once: at set-up for all ranks, later by whichever ranks hold them, before they are lost."""
    atoms = rocksalt((2, 1, 1))
    x, y, z = atoms.positions[4]
    put = f"set atom 6 x {x + 0.3} y {y} z {z}"
    between = {"set-up": f"{put}\nrun 2", "run": f"run 1\n{put}\nrun 2 pre no"}[moment]
    output = run(deck(tiny, atoms, tmp_path, after=between), tmp_path, ranks=ranks)
    pattern = (
        r"WARNING: pair_style mlip, step \d+: atoms (\d+) \(\w+\) and (\d+) \(\w+\) are (\S+) Å apart, closer than"
    )
    found = re.findall(pattern, output)
    assert {tuple(sorted(pair[:2])) for pair in found} == {("5", "6")}, output
    assert [float(pair[2]) for pair in found] == pytest.approx([0.3] * len(found), abs=1e-3)
    # Once in the run in which they are put there, and once in the last `run 0`.
    assert len(found) == 2 if moment == "set-up" else 2 <= len(found) <= 1 + ranks


def test_atoms_at_the_length_of_a_bond_are_not_named(tiny, tmp_path):
    assert "closer than" not in run(deck(tiny, rocksalt(), tmp_path), tmp_path)


def test_a_file_that_one_rank_lacks(tiny, tmp_path):
    """No hang: the other rank is waiting in the next collective call when it is taken down."""
    script = deck(tiny, rocksalt(), tmp_path, coeff="# later")
    before, after = script.split("# later")
    code = f"""
from mlip_deploy.engines.lammps import instance
l = instance(("-log", "none"))
l.commands_string({before!r})
path = {str(tiny)!r} if l.extract_setting("world_rank") == 0 else "nothing.mlip.pt"
l.command(f"pair_coeff * * {{path}} Na Cl")
l.commands_string({after!r})
"""
    (tmp_path / "one.py").write_text(code)
    command = [*python_command(2), "one.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "pair_coeff, on 1 of 2 MPI ranks: 'nothing.mlip.pt': no such file" in done.stdout + done.stderr


def test_a_rank_that_fails_in_a_step(tiny, tmp_path):
    """NaN on one of two ranks, between two exchanges of features."""
    code = f"""
from mlip_deploy.engines.lammps import instance
l = instance(("-log", "none"))
l.commands_string({deck(tiny, rocksalt((2, 1, 1)), tmp_path)!r})
if l.extract_setting("world_rank") == 1:
    l.numpy.extract_atom("x")[0, 0] = float("nan")
l.command("run 1 pre no")
"""
    (tmp_path / "one.py").write_text(code)
    command = [*python_command(2), "one.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "pair_style mlip, step 1: atom positions are not finite" in done.stdout + done.stderr
