"""The checks of single values."""

from typing import Any

from bert_jax.errors import InputError


def require(condition: bool, name: str, value: Any, remedy: str) -> None:
    """Raises InputError where the condition does not hold, naming the field, its value and the remedy."""
    if not condition:
        raise InputError(f"The configuration value {name}={value!r} is not possible: {remedy}")


def positive(config: Any, *names: str) -> None:
    """These fields are greater than zero."""
    for name in names:
        require(getattr(config, name) > 0, name, getattr(config, name), "it must be greater than zero.")


def at_most(config: Any, **limits: int) -> None:
    """Sizes beyond any BERT: what is made from them would fill every memory, or never be compiled."""
    for name, most in limits.items():
        require(getattr(config, name) <= most, name, getattr(config, name), f"it must be at most {most:,}.")


def not_negative(config: Any, *names: str) -> None:
    """These fields are not negative."""
    for name in names:
        require(getattr(config, name) >= 0, name, getattr(config, name), "it must not be negative.")


def fraction(config: Any, *names: str) -> None:
    """These fields are in [0, 1)."""
    for name in names:
        require(0 <= getattr(config, name) < 1, name, getattr(config, name), "it must be in [0, 1).")
