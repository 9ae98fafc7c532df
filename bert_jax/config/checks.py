"""Checks of configuration values."""

from typing import Any

from bert_jax.errors import InputError


def require(condition: bool, name: str, value: Any, remedy: str) -> None:
    """Raise `InputError` if the condition is false, with the field, its value and the remedy."""
    if not condition:
        raise InputError(f"The configuration value {name}={value!r} is invalid: {remedy}")


def positive(config: Any, *names: str) -> None:
    """Check that the fields are greater than zero."""
    for name in names:
        require(getattr(config, name) > 0, name, getattr(config, name), "it must be greater than zero.")


def at_most(config: Any, **limits: int) -> None:
    """Check upper limits that no real BERT reaches; larger models would exhaust memory or never finish compiling."""
    for name, most in limits.items():
        require(getattr(config, name) <= most, name, getattr(config, name), f"it must be at most {most:,}.")


def not_negative(config: Any, *names: str) -> None:
    """Check that the fields are not negative."""
    for name in names:
        require(getattr(config, name) >= 0, name, getattr(config, name), "it must not be negative.")


def fraction(config: Any, *names: str) -> None:
    """Check that the fields are in [0, 1)."""
    for name in names:
        require(0 <= getattr(config, name) < 1, name, getattr(config, name), "it must be in [0, 1).")
