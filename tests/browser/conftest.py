"""What the browser tests share. Old builds of Chromium are run by `make browsers` only: they are fetched and large."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.old_chromium import BUILDS
from tests.support.demo import Demo
from tests.support.link import Link


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "oldbrowser: on Chromium 64, 109, 138 and the current one (make browsers)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `-m oldbrowser` only the current build is run."""
    if "oldbrowser" in config.option.markexpr:
        return
    old = [item for item in items if isinstance(item, pytest.Function) and _major(item) in BUILDS]
    if old:
        config.hook.pytest_deselected(items=old)
        items[:] = [item for item in items if item not in old]


def _major(item: pytest.Function) -> object:
    call = getattr(item, "callspec", None)
    return call.params.get("major") if call is not None else None


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo of its own for each module: codes work once."""
    with Demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture
def link(demo: Demo) -> Iterator[Link]:
    """A network of its own for each test."""
    with Link(demo.port) as running:
        yield running
