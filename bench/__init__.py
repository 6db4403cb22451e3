"""Every speed, size or memory figure we claim, printed by a command: `python -m bench NAME`.

Figures are CPU-seconds, bytes, round trips or ratios taken within one run; elapsed times are for orientation only.
"""
