"""A log written by the phone's own core opens here: nothing in it is strange, and what the server lacks is found."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

from clientcore.bundles import rescue
from clientcore.fold import fold
from clientcore.frame import parse_frame
from clientcore.log import read_foreign

ROOT = Path(__file__).parents[2]
BUNDLE = """
import * as esbuild from 'esbuild';
await esbuild.build({ entryPoints: [process.argv[1]], outfile: process.argv[2], bundle: true, packages: 'external',
  platform: 'node', target: 'node20', format: 'esm', logLevel: 'warning' });
"""


def test_a_phones_log_is_read_folded_and_rescued(tmp_path: Path) -> None:
    """Every row is understood, both cores count the same pending registers, and only unanswered work is handed in."""
    pwa = ROOT / "pwa"
    script = pwa / ".tmp" / "phone_log.mjs"  # beside node_modules, where node looks for packages
    script.parent.mkdir(exist_ok=True)
    source = str(ROOT / "tests" / "support" / "phone_log.ts")
    subprocess.run(["node", "--input-type=module", "-e", BUNDLE, source, str(script)], cwd=pwa, check=True, timeout=60)
    file = tmp_path / "phone.db"
    done = subprocess.run(["node", str(script), str(file)], cwd=pwa, check=True, timeout=60, capture_output=True)
    told = json.loads(done.stdout)
    rows = read_foreign(file)
    state = fold(rows)
    assert (state.unreadable, state.unknown) == (0, 0)
    assert len(state.registers) == told["registers"] == 16
    assert state.pending == told["pending"] == 2
    enrolment = state.enrolment
    assert enrolment is not None
    assert enrolment.device.hex() == told["device"]
    ours = replace(enrolment, server_key=bytes.fromhex(told["serverKey"]))
    found = rescue(rows, ours)
    [frame] = [parse_frame(raw) for raw in found.frames]
    assert [change.register for change in frame.changes] == ["c-3a/2026-11-20/day"]
    assert found.unsealed == (("c-3a/2026-11-22/day", "s1", "L28800000:5"),)
    assert found.unframed == ()
    stranger = rescue(rows, replace(ours, server_key=b"\x04" + bytes(64)))
    assert len(stranger.frames) > 1
