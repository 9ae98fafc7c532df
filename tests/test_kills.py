"""A run that is killed again and again ends as one that never was: a short version of benchmarks/kill_rounds.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).resolve().parents[1]


@tiny.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_runs_leave_what_an_undisturbed_one_leaves(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/kill_rounds.py", "--kills=4", f"--output={tmp_path / 'result'}"]
    rounds = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert rounds.returncode == 0, (rounds.stdout + rounds.stderr)[-4000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["kills"] >= 4 and result["compared"] > 50 and not result["differences"]
