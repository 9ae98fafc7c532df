"""Benchmarks measure the checkout that they are in, installed or not: importing this module puts it and its tests first on the path."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
