"""What the rules refuse: only values that are no values of ours. Facts about a school never raise.

HudurError (clientcore)
└── RuleError
    ├── BadContext     the calendar, window or rights handed in contradict themselves: a bug of the caller
    └── BadOutcome     a stored outcome or published state cannot be read back: the store holds something else
"""

from __future__ import annotations

from clientcore.errors import HudurError


class RuleError(HudurError):
    """Root of the errors of this package."""


class BadContext(RuleError):
    """Code `bad-context`: what surrounds a register contradicts itself. Correct the caller; nothing was decided."""


class BadOutcome(RuleError):
    """Code `bad-outcome`: the plain data is not what `to_wire` of this version gave. Recompute it from the log."""
