"""The families of models that are read and written, one module each."""

from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.errors import InputError
from bert_jax.families.base import Family
from bert_jax.families.bert import BERT

FAMILIES: tuple[Family, ...] = (BERT,)


def family_of(values: Mapping[str, Any], file: object, families: Sequence[Family] = FAMILIES) -> Family:
    """The family that a configuration names as its `model_type`; files older than that key are of the first.

    Raises:
        InputError: none of them has that name.
    """
    name = values.get("model_type", families[0].name)
    found = next((family for family in families if family.name == name), None)
    if found is None:
        titles = " and ".join(family.title for family in families)
        rows = "; ".join(f"`{family.name}`" + (f", which {family.covers} are too" if family.covers else "") for family in families)
        raise InputError(
            f"{file} describes a model of the architecture {name!r} (model_type). Only {titles} {'is' if len(families) == 1 else 'are'} "
            f"read: {rows}."
        )
    return found
