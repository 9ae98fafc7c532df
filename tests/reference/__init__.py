"""Arrays that `transformers` computed, and the script that computes them."""

from pathlib import Path

FILE = Path(__file__).with_name("bert_tiny.npz")
