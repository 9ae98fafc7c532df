"""`report.html`: what a run learned, as one file that opens anywhere and needs no network."""

from bert_jax.report.page import write_report

__all__ = ["write_report"]
