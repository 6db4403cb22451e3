"""Power cuts in a fixed run of the server and one of the device; and the same with weaker settings, which must lose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.power.controls import weak_log, weak_store
from tests.power.cuts import Report, cut_everywhere
from tests.power.runs import DeviceRun, Run, StoreRun

SEED = 7


async def slice_of(run: Run, stride: int, *, syncs_lie: bool = False) -> Report:
    """Every `stride`-th instant of a run; `python -m tests.power` takes them all."""
    report = await cut_everywhere(run, seed=SEED, chosen=lambda io: io % stride == 0, syncs_lie=syncs_lie)
    assert report.images >= 3 * (report.operations // stride)
    return report


async def test_no_power_cut_loses_what_the_server_acknowledged_or_told() -> None:
    """200 pushes through the real intake and the real settle stage: every image is whole, has every durable change,
    byte for byte and at dense offsets, and a feed that begins with every event somebody has read.
    """
    run = StoreRun()
    report = await slice_of(run, 47)
    assert report.failures == []
    assert len(run.durable) == 200
    assert len(run.told) > 150
    assert report.images >= 200
    assert report.operations > 3_000  # a checkpoint of the write-ahead log is among them


async def test_no_power_cut_loses_what_the_device_showed_as_saved() -> None:
    """Taps, seals and frames through the real journal: every image opens with the rows of all acts that returned."""
    run = DeviceRun()
    report = await slice_of(run, 13)
    assert report.failures == []
    assert len(run.saved) > 70
    assert report.images >= 200


@pytest.mark.parametrize(("run", "stride"), [(StoreRun, 331), (DeviceRun, 41)], ids=["store", "device"])
async def test_a_second_cut_while_recovering_loses_nothing_either(run: Callable[[], Run], stride: int) -> None:
    """The next start plays the journal back or checkpoints the log; the power goes again in the middle of that."""
    report = await cut_everywhere(
        run(), seed=SEED, chosen=lambda io: io % stride == 0, chosen_again=lambda io: io % stride == 0
    )
    assert report.failures == []
    assert report.images_again >= report.images // 2


@pytest.mark.parametrize(
    ("run", "stride", "syncs_lie"),
    [
        (lambda: StoreRun(pushes=60, connector=weak_store("NORMAL")), 31, False),
        (lambda: StoreRun(pushes=60, connector=weak_store("OFF")), 31, False),
        (lambda: StoreRun(pushes=60), 31, True),
        (lambda: DeviceRun(taps=30, files=weak_log("FULL")), 11, False),
        (lambda: DeviceRun(taps=30, files=weak_log("NORMAL")), 11, False),
        (lambda: DeviceRun(taps=30, files=weak_log("OFF")), 11, False),
        (lambda: DeviceRun(taps=30), 11, True),
    ],
    ids=["store NORMAL", "store OFF", "store lying sync", "log FULL", "log NORMAL", "log OFF", "log lying sync"],
)
async def test_a_weaker_setting_is_seen_to_lose(run: Callable[[], Run], stride: int, syncs_lie: bool) -> None:
    """A campaign whose controls do not fail proves nothing: each of these loses at some instant."""
    report = await slice_of(run(), stride, syncs_lie=syncs_lie)
    assert report.failures


async def test_the_same_seed_finds_the_same() -> None:
    """Instants, images and verdicts of a failing control are a function of the seed."""
    first, again = [await slice_of(DeviceRun(taps=20, files=weak_log("OFF")), 7) for _ in range(2)]
    assert first == again
