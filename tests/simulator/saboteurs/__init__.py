"""Planted bugs: the proof that the simulator can find something (see `model`, `hook`, `hunt`).

Nothing of the product is imported here, and the product knows nothing of this.
"""

from tests.simulator.saboteurs.in_rules import RULES
from tests.simulator.saboteurs.model import INVARIANTS, NotApplicable, Saboteur
from tests.simulator.saboteurs.on_device import DEVICE
from tests.simulator.saboteurs.on_server import INTAKE, PULL, SETTLE

SABOTEURS: tuple[Saboteur, ...] = (*DEVICE, *INTAKE, *SETTLE, *PULL, *RULES)
BY_NAME = {saboteur.name: saboteur for saboteur in SABOTEURS}

__all__ = ["BY_NAME", "INVARIANTS", "SABOTEURS", "NotApplicable", "Saboteur"]
