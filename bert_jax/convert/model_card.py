"""Writes the model card of an exported model: architecture, training data, command and scores."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bert_jax.families.base import Family
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model.directory import EmbeddingConfig, ModelDescription, read_json
from bert_jax.runtime.metrics import read_metrics
from bert_jax.tasks.published import Published

_SENTENCE_TRANSFORMERS = (
    "```python", "from sentence_transformers import SentenceTransformer", "", 'model = SentenceTransformer("PATH TO THIS DIRECTORY")',
    'vectors = model.encode(["A sentence.", "Another one."])', "```",
)  # fmt: skip


def model_card(
    directory: Path, description: ModelDescription, tokenizer: Tokenizer, family: Family, published: Published, license_name: str
) -> str:
    """Return a README.md with Hugging Face Hub front matter, from the files of the run that `directory` belongs to."""
    embeds = description.embedding != EmbeddingConfig()
    library, pipeline_tag = ("sentence-transformers", "sentence-similarity") if embeds else ("transformers", published.pipeline_tag)
    front = [f"library_name: {library}", f"license: {license_name or 'other'}", "tags:", f"- {family.name}", "- bert_jax"]
    if pipeline_tag:
        front.append(f"pipeline_tag: {pipeline_tag}")
    encoder, architecture = description.encoder, family.prefix + published.suffix
    lines = [
        "---", *front, "---", "", f"# {directory.resolve().parent.name}/{directory.resolve().name}", "",
        f"A `{architecture}`: {encoder.layers} layers of width {encoder.width}, {encoder.heads} heads, {encoder.max_positions} positions, "
        f"{tokenizer.vocab_size:,} tokens ({'uncased' if tokenizer.lowercase else 'cased'}).",
        "", f"The SHA-256 of the vocabulary is `{tokenizer.fingerprint}`.",
    ]  # fmt: skip
    if not license_name:
        lines += ["", "**No license was given at export. Fill in `license` above before publishing this model.**"]
    lines += ["", "## Origin", "", "\n\n".join(_origin(directory))]
    use = _SENTENCE_TRANSFORMERS if embeds else _use(architecture, published.pipeline_tag, published.arguments(tokenizer.kind))
    lines += ["", "## Scores", "", *_scores(directory), "", "## Use", "", *use]
    if "next_sentence" in published.parts:
        lines += ["", "The next-sentence classes follow transformers: class 0 means that B follows A."]
    return "\n".join(lines) + "\n"


def _origin(directory: Path) -> Iterator[str]:
    imported = directory / "import.json"
    if imported.is_file():
        values: dict[str, Any] = read_json(imported)
        yield f"Imported from `{values['source']}`."
        if values["initialized"]:
            yield f"Randomly initialized and not trained: {', '.join(values['initialized'])}."
    run = directory.parent
    command = run / "command.txt"
    if command.is_file():
        yield f"Trained with\n\n```\n{command.read_text(encoding='utf-8').strip()}\n```"
    data = sorted((run / "data").glob("documents/*/1.*/dataset_info.json"))
    for info in data:
        yield f"Prepared text: `{info.parent.parent.name}` (the name ends with a hash of the text and its settings)."
    if (run / "config.json").is_file():
        yield f"The complete configuration:\n\n```json\n{json.dumps(read_json(run / 'config.json'), ensure_ascii=False, indent=1)}\n```"


def _scores(directory: Path) -> Iterator[str]:
    lines = read_metrics(directory)
    result = read_json(directory / "result.json") if (directory / "result.json").is_file() else {}
    rows: dict[str, Any] = {}
    for split in ("train", "valid"):
        last: Mapping[str, Any] = next((line for line in reversed(lines) if line["split"] == split), {})
        rows |= {f"{name.replace('_', ' ')}, {split}, at step {last['step']:,}": value for name, value in last.items() if _shown(name)}
    rows |= {name.replace("_", " "): value for name, value in result.items() if isinstance(value, int | float)}
    if not rows:
        yield "No scores were recorded."
        return
    yield "| score | value |\n| --- | --- |"
    for name, value in rows.items():
        yield f"| {name} | {value:,} |" if isinstance(value, int) else f"| {name} | {value:.4g} |"


def _shown(name: str) -> bool:
    return name.endswith(("loss", "accuracy", "bits_per_character"))


def _use(architecture: str, pipeline_tag: str, arguments: str) -> Iterator[str]:
    yield "```python"
    if pipeline_tag:
        given = f'"{pipeline_tag}", "PATH TO THIS DIRECTORY"' + f", {arguments}" * bool(arguments)
        yield f"from transformers import pipeline\n\npipe = pipeline({given})"
    else:
        yield f'from transformers import AutoTokenizer, {architecture}\n\nmodel = {architecture}.from_pretrained("PATH TO THIS DIRECTORY")'
    yield "```"
