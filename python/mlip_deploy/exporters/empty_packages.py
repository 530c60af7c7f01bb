"""A framework's own modules, without what its packages import beside them.

`import PACKAGE` may bring in calculators, trainers and settings of the whole process. A module of it that needs none of
these is imported behind empty packages of the same names.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class EmptyPackages:
    """Packages of one framework, and modules, that are made here.

    Args:
        names: of the packages that are empty, the framework's own first.
        stand_ins: what modules that are not imported have instead, by their names.
    """

    def __init__(self, *names: str, stand_ins: Mapping[str, Mapping[str, object]] | None = None):
        self._names = names
        self._stand_ins = stand_ins or {}
        self._modules: dict[str, types.ModuleType] = {}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While it is open, the framework is what this object makes of it; then what was imported before is back."""
        before = self._taken_out()
        sys.modules.update(self._modules or self._made())
        try:
            yield
        finally:
            self._modules = self._taken_out()
            sys.modules.update(before)

    def _taken_out(self) -> dict[str, types.ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] == self._names[0]]
        return {name: sys.modules.pop(name) for name in names}

    def _made(self) -> dict[str, types.ModuleType]:
        spec = importlib.util.find_spec(self._names[0])
        assert spec is not None
        assert spec.submodule_search_locations is not None
        folders = {name: Path(*name.split(".")[1:]) for name in self._names}
        # A namespace may lie in several places.
        root = next(
            path
            for path in map(Path, spec.submodule_search_locations)
            if all((path / folder).is_dir() for folder in folders.values())
        )
        made = {name: types.ModuleType(name) for name in (*self._names, *self._stand_ins)}
        for name, folder in folders.items():
            made[name].__path__ = [str(root / folder)]
        for name, contents in self._stand_ins.items():
            vars(made[name]).update(contents)
        return made
