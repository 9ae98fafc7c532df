"""Run a notebook of examples/ and compare what it prints with what is stored in it.

    python .ci/notebook.py examples/quickstart.ipynb            # compare
    python .ci/notebook.py examples/quickstart.ipynb --write    # store

The notebook runs in an empty directory. Texts must be equal, except that numbers with decimals may differ by 0.15, because training
rounds differently on other machines. Pictures are not compared.
"""

import argparse
import copy
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
_NUMBER = re.compile(r"\d+\.\d+")
_TOLERANCE = 0.15
_SECONDS = 1800
"""Of a cell: far more than it takes, except where other work has the cores."""


def run(notebook: Any) -> None:
    """Execute the cells in place, in an empty directory, with the package of this checkout."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as directory:
        where = {"metadata": {"path": directory}}
        NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", coalesce_streams=True, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data.pop("text/plain", None)  # the size of a picture, which says nothing


def printed(cell: Mapping[str, Any]) -> str:
    """Return what a code cell printed."""
    return "".join(output["text"] for output in cell.get("outputs", ()) if output["output_type"] == "stream")


def same(stored: str, found: str) -> bool:
    """Return whether two texts are equal, up to the last digits of their numbers."""
    pairs = zip(_NUMBER.findall(stored), _NUMBER.findall(found), strict=False)
    return _NUMBER.sub("#", stored) == _NUMBER.sub("#", found) and all(abs(float(a) - float(b)) <= _TOLERANCE + 1e-9 for a, b in pairs)


def main() -> int:
    """Run one notebook; the exit status is 1 if it prints something else than is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--write", action="store_true", help="store the outputs instead of comparing them")
    flags = parser.parse_args()
    stored, begun = nbformat.read(flags.notebook, as_version=4), time.monotonic()
    found = copy.deepcopy(stored)
    run(found)
    print(f"{flags.notebook}: {len(found.cells)} cells in {time.monotonic() - begun:.0f} s")
    if flags.write:
        nbformat.write(found, flags.notebook)
        return 0
    differ = [(a, b) for a, b in zip(stored.cells, found.cells, strict=True) if not same(printed(a), printed(b))]
    for a, b in differ:
        print(f"FAILED: a cell printed\n{printed(b)}\ninstead of\n{printed(a)}\n\n{a['source']}", file=sys.stderr)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
