"""The metrics file and the TensorBoard events, also after a crash."""

import json
import struct

import numpy as np
import pytest

from bert_jax.runtime.metrics import MetricsWriter, read_metrics


def events(directory):
    """What TensorBoard shows: scalars by (tag, step), after the purges."""
    from tensorboardX.proto.event_pb2 import Event

    shown: dict[tuple[str, int], float] = {}
    for path in sorted((directory / "tensorboard").glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            size = struct.unpack("<Q", data[:8])[0]
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            if event.HasField("session_log"):
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            shown.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
    return shown


def test_lines_in_order_with_plain_values(tmp_path):
    with MetricsWriter(tmp_path / "pretrain") as writer:
        writer.write(50, "train", {"loss": np.float32(2.5), "examples": np.int64(3), "gradient_norm": float("nan")})
        assert len(read_metrics(tmp_path / "pretrain")) == 1, "a line is there as soon as it is written"
        writer.write(np.int32(100), "valid", {"loss": float("inf"), "mlm_accuracy": 0.25})
    assert read_metrics(tmp_path / "pretrain") == [
        {"step": 50, "split": "train", "loss": 2.5, "examples": 3, "gradient_norm": None},
        {"step": 100, "split": "valid", "loss": None, "mlm_accuracy": 0.25},
    ]
    # Strict JSON: what other programs read.
    text = (tmp_path / "pretrain" / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert events(tmp_path / "pretrain") == {("loss/train", 50): 2.5, ("examples/train", 50): 3, ("mlm_accuracy/valid", 100): 0.25}


@pytest.mark.parametrize("torn", ["", '{"step": 40, "split": "tr', '{"step": 40, "split": "train", "loss": 6.0}', "\x00\x00\x00"])
def test_an_interrupted_run_leaves_no_gap_and_no_double_line(tmp_path, torn):
    def run(first, last, resume_step):
        with MetricsWriter(tmp_path, resume_step=resume_step) as writer:
            for step in range(first, last + 1, 10):
                writer.write(step, "train", {"loss": 1 / step})

    run(10, 30, 0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    run(30, 50, 20)  # the newest checkpoint was that of step 20
    assert [line["step"] for line in read_metrics(tmp_path)] == [10, 20, 30, 40, 50]
    assert all(json.loads(line)["loss"] == 1 / json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert sorted(step for _, step in events(tmp_path)) == [10, 20, 30, 40, 50]
    assert not list(tmp_path.glob("*.tmp"))


def test_without_a_checkpoint_a_run_starts_afresh(tmp_path):
    for value in (1.0, 2.0):
        with MetricsWriter(tmp_path, resume_step=0) as writer:
            writer.write(0, "valid", {"loss": value})
            writer.write(10, "train", {"loss": value})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(0, 2.0), (10, 2.0)]
    assert events(tmp_path) == {("loss/valid", 0): 2.0, ("loss/train", 10): 2.0}


def test_without_a_resume_step_lines_are_appended_after_a_torn_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "split": "train", "loss": 1.0}\n{"step": 20, "spl')
    with MetricsWriter(tmp_path) as writer:
        writer.write(20, "train", {"loss": 0.5})
    assert [line["step"] for line in read_metrics(tmp_path)] == [10, 20]


def test_nothing_written_yet(tmp_path):
    assert read_metrics(tmp_path) == []
