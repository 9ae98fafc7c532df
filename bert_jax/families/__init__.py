"""The model families that can be imported and exported, one module per family."""

from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.errors import InputError
from bert_jax.families.base import Family
from bert_jax.families.bert import BERT

FAMILIES: tuple[Family, ...] = (BERT,)


def family_of(values: Mapping[str, Any], file: object, families: Sequence[Family] = FAMILIES) -> Family:
    """Return the family that a configuration names as its `model_type`; files that predate this key belong to the first family.

    Raises:
        InputError: no family has this name.
    """
    name = values.get("model_type", families[0].name)
    found = next((family for family in families if family.name == name), None)
    if found is None:
        titles = " and ".join(family.title for family in families)
        rows = "; ".join(f"`{family.name}`" + (f" (includes {family.covers})" if family.covers else "") for family in families)
        raise InputError(
            f"{file} describes a model of the architecture {name!r} (model_type). Only {titles} {'is' if len(families) == 1 else 'are'} "
            f"supported: {rows}."
        )
    return found
