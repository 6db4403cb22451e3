"""Configuration: read once, refused early, and never open to strangers by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncserver.config import Config, PostgresAddress, read_config, store_address, store_path, store_text
from syncserver.errors import ConfigError


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_another_bind_than_loopback_needs_a_token(host: str) -> None:
    """Events and metrics are for operators; a server that strangers can reach does not start without a token."""
    with pytest.raises(ConfigError, match="HUDUR_OPERATOR_TOKEN"):
        Config(store=Path("x"), host=host)
    assert Config(store=Path("x"), host=host, operator_token="t").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_needs_none(host: str) -> None:
    """This machine alone may look without a token."""
    assert Config(store=Path("x"), host=host).is_loopback


def test_the_token_is_not_printed() -> None:
    """A configuration in a log or traceback does not show the secret."""
    assert "hunter2" not in repr(Config(store=Path("x"), operator_token="hunter2"))


def test_the_command_line_wins_over_the_environment() -> None:
    """PORT and HUDUR_HOST count only where the command line says nothing."""
    environment = {"PORT": "9000", "HUDUR_ENV": "pilot"}
    config = read_config(environment, store="sqlite:a.db", port=1)
    assert (config.port, config.env, config.store) == (1, "pilot", Path("a.db"))
    assert read_config(environment, store="sqlite:a.db").port == 9_000


def test_the_target_of_the_delay_comes_from_the_environment() -> None:
    """When to begin to put pushes off can be set; by default it is what the configuration says."""
    environment = {"HUDUR_DELAY_TARGET_MS": "400", "HUDUR_DELAY_INTERVAL_MS": "2000"}
    config = read_config(environment, store="sqlite:a.db")
    assert (config.delay_target_ms, config.delay_interval_ms) == (400, 2_000)
    plain, by_default = Config(store=Path("a.db")), read_config({}, store="sqlite:a.db")
    assert (by_default.delay_target_ms, by_default.delay_interval_ms) == (
        plain.delay_target_ms,
        plain.delay_interval_ms,
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PORT": "x"},
        {"PORT": "70000"},
        {"HUDUR_ENV": "No"},
        {"HUDUR_DELAY_TARGET_MS": "0"},
        {"HUDUR_DELAY_INTERVAL_MS": "1e3"},
    ],
)
def test_nonsense_is_refused(environment: dict[str, str]) -> None:
    """What cannot be used is said before anything starts."""
    with pytest.raises(ConfigError):
        read_config(environment, store="sqlite:a.db")


@pytest.mark.parametrize("text", ["a.db", "sqlite:", "postgres:x", "", "postgresql://h", "mysql://u:hunter2@h/d"])
def test_other_stores_are_refused(text: str) -> None:
    """Only `sqlite:PATH` and `postgresql://…`; what was said is not repeated, it may hold a password."""
    with pytest.raises(ConfigError) as told:
        store_address(text)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("text", ["postgresql://u:hunter2@h:5433/d?sslmode=require", "postgres://u:hunter2@h/d"])
def test_the_password_of_postgresql_is_not_printed(text: str) -> None:
    """An address in a log, a traceback or an answer does not show it; whoever connects has it."""
    config = read_config({}, store=text)
    assert isinstance(config.store, PostgresAddress)
    assert config.store.dsn == text
    assert "hunter2" not in f"{config!r} {config.store} {store_text(config.store)}"


def test_what_works_on_files_refuses_postgresql() -> None:
    """With what to do instead; files are taken."""
    with pytest.raises(ConfigError, match="pg_basebackup"):
        store_path("postgresql://u:hunter2@h/d")
    assert store_path("sqlite:a.db") == Path("a.db")
