"""`report.html`: the results of a run, as one self-contained file that opens in any browser without a network connection."""

from bert_jax.report.page import write_report

__all__ = ["write_report"]
