"""Measurements as lines of JSON in a file: each is added as soon as it is measured, and no interruption loses one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Lines:
    """The lines of a file, which need not exist. A line that was cut off, or is no JSON object, counts as missing.

    Attributes:
        found: all lines in order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self.found = [line for part in text.splitlines() if (line := _parsed(part)) is not None]

    def of(self, key: Mapping[str, Any]) -> list[Line]:
        """The lines that have these values."""
        return [line for line in self.found if key.items() <= line.items()]

    def add(self, line: Line) -> None:
        """Append a line, beginning a new one where the last was cut off."""
        self.found.append(line)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            cut_off = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * cut_off + json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _parsed(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
