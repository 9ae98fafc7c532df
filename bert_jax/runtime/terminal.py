"""Compact number formatting and terminal column widths; a Chinese character is two columns wide."""

import unicodedata


def width(text: str) -> int:
    """Return the number of terminal columns that a text occupies."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def padded(text: str, columns: int) -> str:
    """Pad a text with spaces to `columns` terminal columns."""
    return text + " " * (columns - width(text))


def percent(probability: float) -> str:
    """Format a probability as a percentage in six columns: `  5.3%`."""
    return f"{100 * probability:5.1f}%"


def count(number: float) -> str:
    """Format a number compactly: `950`, `21.3k`, `4.0M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Format a duration: `0:07`, `3:10`, `1:02:10`."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
