"""Several fake devices mask, augment and train on units as one does, and units stay on their devices."""

import json
import os
from typing import Any

import children
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="takes a minute: LONG_TESTS=1")]


@pytest.fixture(scope="module")
def devices() -> dict[str, Any]:
    return json.loads(children.finish([children.start("units.py", devices=4)])[0])


@pytest.mark.parametrize("function", ["masking 32", "masking 16", "augmentation"])
def test_four_devices_change_units_as_one_does(devices: dict[str, Any], function: str) -> None:
    assert devices[function]["equal"]


def test_units_stay_on_their_device(devices: dict[str, Any]) -> None:
    """If a device has whole groups of eight rows, random units come from its own rows; what is sent is about ids."""
    assert devices["masking 32"]["sent"] == devices["masking 32 without units"]["sent"]
    assert sum(devices["masking 16"]["sent"].values()) > sum(devices["masking 32"]["sent"].values()), "half a group does not suffice"
    assert not devices["augmentation"]["sent"]


@pytest.mark.parametrize("mesh", ["2,1,1", "1,2,1", "1,1,2", "2,2,1"])
def test_steps_on_a_mesh_equal_those_of_one_device(devices: dict[str, Any], mesh: str) -> None:
    found, wanted = devices["steps"][mesh], devices["steps"]["one"]
    assert wanted["losses"][-1][0] < wanted["losses"][0][0], "it learns, so every update counts"
    np.testing.assert_allclose(found["losses"], wanted["losses"], rtol=5e-5)
    for name in ("kernel", "special"):
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-4)


def test_the_projection_is_cut_over_fsdp(devices: dict[str, Any]) -> None:
    shards = {mesh: run["shard"] for mesh, run in devices["steps"].items()}
    assert shards == {"one": [12, 32], "2,1,1": [12, 32], "1,2,1": [6, 32], "1,1,2": [12, 32], "2,2,1": [6, 32]}
