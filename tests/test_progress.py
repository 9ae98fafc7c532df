"""The live line, on a real pseudo-terminal and in a log file."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from bert_jax.runtime import progress
from bert_jax.runtime.progress import TrainingProgress, WorkProgress
from bert_jax.runtime.terminal import count, duration

TRAINING = """
from bert_jax.runtime.progress import TrainingProgress
fields = {"loss": 3.2141, "mlm_accuracy": 0.2514, "nsp_accuracy": 0.81, "learning_rate": 1e-4}
fields |= {"real_tokens_per_second": 21_300, "padding": 0.031}
with TrainingProgress(5000, 1000, "pretrain") as line:
    for step in range(1001, 1201):
        line.update(step, fields)
    line.message("held out: loss 3.3")
"""


def on_a_terminal(script: str, columns: int) -> str:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    with subprocess.Popen([sys.executable, "-W", "error", "-c", script], stderr=slave) as child:
        os.close(slave)
        output = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the end of a pseudo-terminal on Linux
                break
            if not chunk:
                break
            output += chunk
        assert child.wait(timeout=30) == 0
    os.close(master)
    return output.decode()


def in_a_log(script: str) -> str:
    return subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True, timeout=30).stderr


def test_a_log_gets_few_plain_lines_and_the_last_state():
    lines = in_a_log(TRAINING).splitlines()
    assert len(lines) == 3
    assert lines[0] == "pretrain  1001/5000  loss 3.214  mlm 25.1%  nsp 81.0%  21.3k tok/s  pad 3.1%"
    assert lines[1] == "held out: loss 3.3"
    assert re.fullmatch(r"pretrain  1200/5000  loss 3\.214 .* pad 3\.1%  left \d+:\d\d", lines[2])


def test_a_terminal_gets_one_line_redrawn_and_messages_apart():
    output = on_a_terminal(TRAINING, columns=120)
    assert "\r" in output
    # The message stands alone on its line, and the last state is what is left on the screen.
    screen = [line.split("\r")[-1].rstrip() for line in output.replace("\r\n", "\n").split("\n")]
    assert "held out: loss 3.3" in screen
    assert any(line.startswith("pretrain  1200/5000  loss 3.214  mlm 25.1%") for line in screen)
    assert len([line for line in screen if line.startswith("pretrain")]) == 1


def test_a_narrow_terminal_cuts_the_line_and_one_without_a_width_gets_plain_lines():
    drawn = on_a_terminal(TRAINING, columns=40).replace("\r\n", "\n")
    assert max(len(part.strip("\n")) for part in re.split(r"[\r\n]|\x1b\[A", drawn)) <= 40
    assert on_a_terminal(TRAINING, columns=0).replace("\r\n", "\n").count("\r") == 0


def test_silence_when_nothing_is_to_be_shown(capfd):
    with TrainingProgress(10, 0, "pretrain", show=False) as line:
        line.update(1, {"loss": 1.0})
        line.message("text")
    assert capfd.readouterr() == ("", "")


def test_log_lines_keep_their_distance(capfd, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with TrainingProgress(100, 0, "finetune") as line:
        for step in range(1, 101):
            now += 1.0
            line.update(step, {"loss": 1.0})
    lines = capfd.readouterr().err.splitlines()
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [*range(1, 101, 10), 100]
    assert lines[1].endswith("left 1:29") and lines[-1].endswith("left 0:00")


def test_the_time_left_leaves_out_what_came_before_the_first_step(capfd, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with TrainingProgress(1010, 1000, "pretrain") as line:
        now = 600.0  # compilation
        line.update(1001, {})
        now = 610.0
        line.update(1002, {})
    assert capfd.readouterr().err.splitlines()[-1] == "pretrain  1002/1010  left 1:20"


def test_work_with_and_without_a_total(capfd, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with WorkProgress("prepare", "B", total=4_000_000) as line:
        for _ in range(3):
            now += 1.0
            line.update(1_000_000)
    with WorkProgress("classify", "texts") as line:
        now += 2.0
        line.update(50)
    with WorkProgress("classify", "texts", total=1050, initial=900) as line:
        now += 2.0
        line.update(100)
    assert capfd.readouterr().err.splitlines() == [
        "prepare  1.0M/4.0M B  1.0M B/s",
        "prepare  3.0M/4.0M B  1.0M B/s  left 0:01",
        "classify  50 texts  25 texts/s",
        "classify  1.0k/1.1k texts  50 texts/s",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (190, "3:10"), (3730, "1:02:10"), (-1, "0:00")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (950, "950"), (21_300, "21.3k"), (4e6, "4.0M"), (1.25e9, "1.2G")])
def test_counts(number, text):
    assert count(number) == text
