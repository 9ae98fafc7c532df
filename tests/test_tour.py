"""The code of docs/tour.md works as it stands there."""

import re
from pathlib import Path

import numpy as np

TOUR = Path(__file__).resolve().parents[1] / "docs" / "tour.md"


def test_the_tour_runs_from_start_to_end(tiny_pretrained: Path, tiny_classifier: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TOUR.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 7
    code = "\n".join(blocks).replace("runs/demo/pretrain", str(tiny_pretrained)).replace("runs/demo/finetune", str(tiny_classifier))
    names: dict = {}
    exec(compile(code, str(TOUR), "exec"), names)
    assert names["vectors"].shape[-1] == names["bert"].config.width
    assert names["saliency"].shape == names["row"]["tokens"].shape and (np.asarray(names["saliency"]) > 0).all()
    np.testing.assert_allclose(names["hidden"], names["encode"](names["bert"].params, names["row"]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(names["lower"]), 1, atol=1e-5)
