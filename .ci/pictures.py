"""Draw the pictures of the documentation: parts of the report of a run, and of the page that looks into its models.

    python .ci/pictures.py runs/demo

The run is that of configs/demo.py. Writes docs/pictures/*.png, which are committed. Needs chromium, and the packages of
requirements-ci.txt and requirements-extra.txt.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
_SECONDS = 120_000  # milliseconds

REPORT = {
    "report": "section:has(h2:text-is('Results'))",
    "masked_tokens": "figure.chart:has(figcaption:text-is('Masked-token accuracy'))",
    "sentiment": "section:has(h2:text-is('Fine-tuning')) figure.chart >> nth=0",
}
"""What is drawn of report.html."""


def fill(section: Any) -> None:
    """Mask a character of a sentence."""
    section.locator("textarea").fill("这家酒店的服务很好。")
    section.locator("[data-text=好][aria-label*=surprisal]").click()
    section.locator(".blanks li").nth(4).wait_for()


def attention(section: Any) -> None:
    """Choose a token of a sentence."""
    section.locator("textarea").fill("房间很干净。")
    section.locator(".tokens button").nth(4).click()


def next_sentence(section: Any) -> None:
    """Ask about two sentences."""
    section.locator("textarea").nth(0).fill("房间很干净，")
    section.locator("textarea").nth(1).fill("服务也很好。")


def classify(section: Any) -> None:
    """Ask for the sentiment of a text."""
    section.locator("textarea").nth(0).fill("服务态度太差了，再也不来了。")


PAGE: dict[str, Callable[[Any], None]] = {"fill": fill, "next": next_sentence, "attention": attention, "classify": classify}
"""What is drawn of the page, by the name of its section."""


def save(screenshot: bytes, name: str) -> None:
    """Write a picture of few colors, which makes a small file."""
    image = Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(PICTURES / f"{name}.png", optimize=True)
    print(f"{name}.png: {image.width} x {image.height}, {(PICTURES / f'{name}.png').stat().st_size:,} bytes", flush=True)


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    workdir = parser.parse_args().workdir
    PICTURES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bert_jax", "serve", *(str(workdir / stage) for stage in ("pretrain", "finetune")), "--port=0"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server, sync_playwright() as engine:
        assert server.stdout
        url = next(line.split()[2] for line in server.stdout if line.startswith("serving at"))
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_context(viewport={"width": 1100, "height": 900}, device_scale_factor=1.5, locale="en-US").new_page()
        tab.set_default_timeout(_SECONDS)
        tab.goto((workdir / "report.html").resolve().as_uri())
        for name, part in REPORT.items():
            save(tab.locator(part).first.screenshot(), name)
        tab.set_viewport_size({"width": 820, "height": 900})
        tab.goto(url)
        for name, prepare in PAGE.items():
            section = tab.locator(f"#{name}")
            section.scroll_into_view_if_needed()
            prepare(section)
            tab.evaluate("document.activeElement.blur()")
            tab.wait_for_timeout(1_000)
            tab.locator(f"#{name}:not([aria-busy])").wait_for()
            save(section.screenshot(), name)
        browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
