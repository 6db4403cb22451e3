"""The test switch: an import hook that hands out one module of the product with one line replaced.

Installed by the laboratory alone, in a fresh process, before anything of the product is imported. The files on disk and
their bytecode stay as they are; the product knows nothing of this.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from tests.simulator.saboteurs.model import Saboteur


class TooLate(Exception):
    """The module was imported before the saboteur came: the process would run the sound code."""


class SabotagedLoader(SourceFileLoader):
    """Loads one module from its source, bug included; bytecode is neither read nor written."""

    def __init__(self, fullname: str, path: str, saboteur: Saboteur) -> None:
        super().__init__(fullname, path)
        self._saboteur = saboteur

    def get_code(self, fullname: str) -> CodeType:
        """The module's code with the bug.

        Raises:
            NotApplicable: see `Saboteur.apply`.
        """
        path = self.get_filename(fullname)
        source = importlib.util.decode_source(self.get_data(path))
        return compile(self._saboteur.apply(source), path, "exec", dont_inherit=True)


class SaboteurFinder(MetaPathFinder):
    """Finds the sabotaged module; every other module is found as ever."""

    def __init__(self, saboteur: Saboteur) -> None:
        self._saboteur = saboteur

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        if fullname != self._saboteur.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        spec.loader = SabotagedLoader(fullname, spec.origin, self._saboteur)
        spec.cached = None
        return spec


def install(saboteur: Saboteur) -> None:
    """From now on this process runs the product with the bug.

    Raises:
        TooLate: when the module is imported already.
        NotApplicable: see `Saboteur.apply`.
    """
    if saboteur.module in sys.modules:
        raise TooLate(f"{saboteur.module} is imported already")
    saboteur.apply(saboteur.source())
    sys.meta_path.insert(0, SaboteurFinder(saboteur))
