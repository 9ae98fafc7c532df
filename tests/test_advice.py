"""The advice of `inspect`: which size to pre-train for the time there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from bert_jax.cli import main
from bert_jax.stages import advice
from bert_jax.stages.advice import Scaling, Size

SMALL = Size("tiny", 10_000, [(3e6, 4.0), (12e6, 3.0), (36e6, 2.8)])
LARGE = Size("mini", 3_000, [(9e5, 6.0), (36e5, 3.6), (108e5, 2.5)])
MEASURED = Scaling(1e11, 0.5, [SMALL, LARGE])


def test_a_curve_goes_through_its_points_and_a_little_further() -> None:
    for tokens, bits in SMALL.points:
        assert SMALL.bits(tokens) == pytest.approx(bits)
    assert SMALL.bits(6e6) == pytest.approx(12**0.5), "the geometric mean half-way between 3 and 12 million"
    further = SMALL.bits(72e6)
    assert further and 2.6 < further < 2.8
    assert SMALL.bits(2e6) is None and SMALL.bits(120e6) is None and Size("x", 1.0, [(1e6, 3.0)]).bits(1e6) is None


def test_the_best_size_depends_on_the_time_and_the_machine() -> None:
    assert MEASURED.lines(1e11, 20_000_000) == [
        "5 minutes on this machine: tiny, 3.0M tokens, about 4.0 bits per character",
        "20 minutes on this machine: tiny, 12M tokens, about 3.0 bits per character",
        "one hour on this machine: mini, 11M tokens, about 2.5 bits per character",
    ]
    slow, fast = MEASURED.lines(0.5e11, 20_000_000), MEASURED.lines(4e11, 100_000_000)
    assert [line.partition(":")[0] for line in slow] == ["20 minutes on this machine", "one hour on this machine"]
    assert "tiny, 18M tokens" in slow[1] and fast[0] == "5 minutes on this machine: tiny, 12M tokens, about 3.0 bits per character"
    assert not MEASURED.lines(1e14, 20_000_000), "far from what was measured, there is none"
    assert not Scaling(1e11, 0.5, [SMALL]).lines(1e11, 20_000_000), "one size is no choice"


def test_a_corpus_that_is_too_small_for_the_time_is_said() -> None:
    found = MEASURED.lines(1e11, 1_000_000)[-1]
    assert found.endswith("mini, 11M tokens, about 2.5 bits per character on more text: that is 22 epochs of this corpus")


STORED = {
    "peak_flops": 1e11,
    "tokens_per_character": 0.25,
    "sizes": {size.name: {"tokens_per_second": size.tokens_per_second, "points": size.points} for size in (SMALL, LARGE)},
}


@pytest.mark.parametrize(("text", "script", "advised"), [
    ("The hotel was clean. Der Tisch war gut.\n", "latin", True),
    ("房间很干净，服务 OK。\n", "han", False),
    ("Номер был чистый.\n", "", False),
])  # fmt: skip
def test_inspect_advises_where_text_of_the_script_was_measured(
    text: str, script: str, advised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "scaling.json").write_text(json.dumps({"latin": STORED}))
    monkeypatch.setattr(advice, "FILE", str(tmp_path / "scaling.json"))
    monkeypatch.setattr("bert_jax.training.peak.peak_flops", lambda: 1e11)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(text * 3, encoding="utf-8")
    assert main(["inspect", str(corpus)]) == 0
    assert ("one hour on this machine: mini, 11M tokens" in capsys.readouterr().out) == advised
    assert main(["inspect", str(corpus), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["script"] == script and found["visible_characters"] == 3 * len("".join(text.split()))
    assert len(found["advice"]) == 3 * advised


def test_what_is_stored_can_be_read() -> None:
    """Whatever was measured so far."""
    stored = json.loads((Path(advice.__file__).parent / advice.FILE).read_text(encoding="utf-8"))
    assert stored.keys() <= {"han", "latin"}
    for values in stored.values():
        found = advice.scaling(values)
        assert found and len(found.sizes) > 1 and found.lines(found.peak_flops, 10**9)
