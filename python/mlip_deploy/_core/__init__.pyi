from collections.abc import Sequence
from typing import overload

from mlip_deploy.result import Array, Evaluation

EV_IN_KJ_PER_MOL: float
EV_IN_KCAL_PER_MOL: float

class Potential:
    @overload
    def __init__(
        self,
        path: str,
        device: str = "cpu",
        threads: int = 0,
        edges: str = "auto",
        self_test: bool = True,
        precision: str = "full",
    ) -> None: ...
    @overload
    def __init__(
        self,
        paths: Sequence[str],
        device: str = "cpu",
        threads: int = 0,
        edges: str = "auto",
        self_test: bool = True,
        drive: str = "first",
        precision: str = "full",
    ) -> None: ...
    def compute(
        self,
        positions: Array,
        types: Sequence[int],
        cell: Array,
        periodic: Sequence[bool],
        extras: bool = False,
        atom_virials: bool = False,
        centroid_virials: bool = False,
        settings: Sequence[tuple[str, float | str]] = (),
        forces: bool = True,
        features: bool = False,
        grades: bool = False,
        deviation: bool = False,
        uncertainties: bool = False,
    ) -> Evaluation: ...
    def compute_many(
        self,
        structures: Sequence[tuple[Array, Sequence[int], Array, Sequence[bool]]],
        settings: Sequence[tuple[str, float | str]] = (),
        counted_from: int = 0,
    ) -> list[Evaluation]: ...
    def timings(self) -> tuple[float, float]: ...
    def search_seconds(self) -> float: ...
    @property
    def no_grades(self) -> str: ...
    @property
    def no_uncertainties(self) -> str: ...
    @property
    def self_test(self) -> str: ...
    @property
    def device(self) -> str: ...

def compiled_torch_version() -> str: ...
def model_threads() -> int: ...
def check_contract(json: str, source: str) -> None: ...
def format() -> tuple[tuple[int, int], list[str], dict[str, tuple[int, int]]]: ...
