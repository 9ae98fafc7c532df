"""Which size to pick for a budget: held-out bits per character against minutes of two cores, for four sizes.

    python benchmarks/campaign.py --only='scaling/*' ...
    python benchmarks/scaling.py --campaign=benchmarks/results/campaign.jsonl --output=benchmarks/results/scaling \
        --advice=bert_jax/stages/scaling.json

Prints a table, draws OUTPUT_LANGUAGE.svg, and with --advice writes what `python -m bert_jax inspect` advises from: it prints advice for
text of a script as soon as two sizes are measured at two budgets. The sizes and the trainings are in benchmarks/cells/scaling.py.
"""

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
from cells.cell import LANGUAGES
from cells.scaling import SIZES
from lines import Line, Lines

from bert_jax.model.directory import write_json
from bert_jax.report.svg import Chart, Series, picture

SCRIPTS = {"zh": "han", "en": "latin"}
NAMES = {"zh": "Chinese", "en": "English"}
COLORS = ("pretrained", "scratch", "third", "fourth")


def main() -> None:
    """Print, draw and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaign", type=Path, required=True, help="the results of campaign.py")
    parser.add_argument("--output", type=Path, required=True, help="output path without the language and the extension")
    parser.add_argument("--advice", type=Path, help="the file to write for inspect")
    flags = parser.parse_args()
    lines, advised = Lines(flags.campaign), {}
    for language in LANGUAGES:
        found = measured(lines, language)
        if not found:
            continue
        print("\n".join(table(language, found)))
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        flags.output.with_name(f"{flags.output.name}_{language}.svg").write_text(draw(language, found), encoding="utf-8")
        if stored := for_advice(found):
            advised[SCRIPTS[language]] = stored
    if flags.advice:
        write_json(flags.advice, advised)


def measured(lines: Lines, language: str) -> dict[str, dict[float, Line]]:
    """The newest pre-training of each size and number of minutes."""
    found: dict[str, dict[float, Line]] = {size: {} for size in SIZES}
    for line in lines.found:
        family, _, variant = line["cell"].partition(f"/{language}/")
        size = variant.partition(" ")[0]
        if family == "scaling" and size in SIZES:
            result = line["results"]["pretrain"]["pretrain"]
            found[size][result["minutes"]] = result
    return {size: dict(sorted(own.items())) for size, own in found.items() if own}


def table(language: str, found: dict[str, dict[float, Line]]) -> list[str]:
    """A table of bits per character, with millions of tokens in parentheses."""
    budgets = sorted({minutes for own in found.values() for minutes in own})
    rows = [f"| {NAMES[language]} | " + " | ".join(f"{minutes:g} min" for minutes in budgets) + " |", "| --- " * (len(budgets) + 1) + "|"]
    for size, own in found.items():
        cells = (own.get(minutes) for minutes in budgets)
        shown = (f"{one['mlm_bits_per_character']:.3f} ({one['real_tokens'] / 1e6:.1f}M)" if one else "" for one in cells)
        rows.append(f"| {size} | " + " | ".join(shown) + " |")
    return rows


def draw(language: str, found: dict[str, dict[float, Line]]) -> str:
    """The picture of the table."""
    series = [
        Series(size, [(minutes, one["mlm_bits_per_character"]) for minutes, one in own.items()], color, held_out=True)  # type: ignore[arg-type]
        for (size, own), color in zip(found.items(), COLORS, strict=False)
    ]
    return picture(Chart(f"{NAMES[language]}: held-out bits per character", series), "minutes of pre-training on two cores")


def for_advice(found: dict[str, dict[float, Line]]) -> dict[str, Any] | None:
    """The values of `bert_jax.stages.advice.Scaling`; None if there is nothing to choose from."""
    several = {size: list(own.values()) for size, own in found.items() if len(own) > 1}
    if len(several) < 2:
        return None
    results = [one for own in several.values() for one in own]
    return {
        "peak_flops": statistics.median(one["rate"]["peak_flops"] for one in results),
        "tokens_per_character": statistics.median(one["mlm_bits_per_character"] * math.log(2) / one["mlm_loss"] for one in results),
        "sizes": {
            size: {
                "tokens_per_second": round(statistics.median(one["rate"]["tokens_per_second"] for one in own), 1),
                "points": [[one["real_tokens"], round(one["mlm_bits_per_character"], 4)] for one in own],
            }
            for size, own in several.items()
        },
    }


if __name__ == "__main__":
    main()
