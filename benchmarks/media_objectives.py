"""What to predict at masked units of images and recordings: the objectives, compared by fine-tuning after equal time of pre-training.

    pip install -r benchmarks/requirements.txt
    python benchmarks/media_objectives.py --images=cifar10 --audio=fsdd/recordings --workdir=runs/objectives \
        --output=benchmarks/results/media_objectives

The labels of masked units are their codes, which come from

- k-means: k-means over units, each of whose numbers has mean 0 and deviation 1 over the corpus (the default);
- k-means of shapes: the same over units that are also freed of their own mean and deviation (vocabulary.normalize=units);
- random projection: the nearest of random directions in a random subspace, nothing of which is learned (BEST-RQ, Chiu et al. 2022);
- hidden layer: k-means over the outputs of the second of the three layers of a first model, trained for half of the steps on the codes
  of k-means; the second model is trained for the other half (HuBERT's second iteration, Hsu et al. 2021, section III.B);
- k-means, two halves: the default, and whether the second half belongs to the first (pretrain.rows.next_sentence=nsp);
- from scratch: no pre-training.

A training step costs the same with all of them, so equal steps are equal time; the time to make codes is not counted. Fine-tuning uses
100 labels per class of images and 1 per digit and speaker. An interrupted benchmark goes on where it was. Writes OUTPUT.json.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import jax
import media
import numpy as np
from linear_baselines import SEEDS
from machine import machine, versions

from bert_jax.config import ComputeConfig, RunConfig
from bert_jax.data.reader import Reader
from bert_jax.data.records.corpora import Prepared
from bert_jax.data.records.record import Document
from bert_jax.modalities import find
from bert_jax.modalities.media.codebook import SPECIAL_TOKENS, Codebook
from bert_jax.model.directory import write_json
from bert_jax.stages.pretrain import pretrain
from bert_jax.stages.run import prepare_data
from bert_jax.storage.files import is_whole, made_whole
from bert_jax.tasks.stored import build, load_model

STEPS = {"images": 600, "recordings": 1500}
LABELS = {"images": 100, "recordings": 1}
DIMENSIONS = 16
"""Of the random subspace, as in BEST-RQ."""
LAYER = 2
"""Whose outputs are clustered."""
DOCUMENTS_AT_ONCE, SAMPLED_DOCUMENTS = 256, 4096


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder with the folders train and test")
    parser.add_argument("--audio", type=Path, help="a folder of recordings")
    parser.add_argument("--workdir", type=Path, required=True, help="for the models and finished measurements")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    flags = parser.parse_args()
    media.start(flags.workdir / "programs")
    lines = [line for data in media.data_sets(flags.images, flags.audio, flags.workdir) for line in measured(data, flags.workdir)]
    for line in lines:
        print(f"{line['data']:<12}{line['objective']:<24}{media.spread(line['accuracies'])}")
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(flags.output.with_suffix(".json"), {"machine": machine(), "versions": versions([]), "steps": STEPS, "lines": lines})


def measured(data: media.DataSet, workdir: Path) -> Iterator[dict[str, Any]]:
    """The accuracies with each objective."""
    for name, make in OBJECTIVES.items():
        folder = workdir / data.name / name.replace(" ", "_").replace(",", "")
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / "measured.json"
        if not record.is_file():
            model, result = make(data, folder)
            accuracies = [
                media.fine_tuned(data, model, LABELS[data.name], data.sample(LABELS[data.name], seed), data.test, seed, name != SCRATCH)
                for seed in SEEDS
            ]
            write_json(record, {"data": data.name, "objective": name, "accuracies": accuracies, "pretraining": result})
        line = json.loads(record.read_text(encoding="utf-8"))
        print(f"{data.name}, {name}: {media.spread(line['accuracies'])}", flush=True)
        yield line


def trained(data: media.DataSet, folder: Path, config: RunConfig, reader: Reader | None = None, relabel: Any = None) -> tuple[Path, Any]:
    """Pre-train in `folder`; return the model directory and its metrics.

    Args:
        reader: the codebook, if it is not learned as usual.
        relabel: replaces the prepared corpus by one with other codes.
    """
    modality = find(config.corpus.modality)
    if reader is not None and not is_whole(folder / "vocabulary"):
        with made_whole(folder / "vocabulary") as unfinished:
            reader.save(unfinished)
    reader, prepared = prepare_data(config, folder, modality)
    if relabel:
        prepared = relabel(reader, prepared)
    return folder / "pretrain", pretrain(config, folder / "pretrain", modality, reader, prepared)


def kmeans(data: media.DataSet, folder: Path) -> tuple[Path, Any]:
    """The default."""
    return trained(data, folder, media.with_steps(data.pretraining, STEPS[data.name]))


def shapes(data: media.DataSet, folder: Path) -> tuple[Path, Any]:
    config = media.with_steps(data.pretraining, STEPS[data.name])
    return trained(data, folder, dataclasses.replace(config, vocabulary=dataclasses.replace(config.vocabulary, normalize="units")))


def halves(data: media.DataSet, folder: Path) -> tuple[Path, Any]:
    config = media.with_steps(data.pretraining, STEPS[data.name])
    assert config.pretrain is not None
    # One more place if there is one: the two halves of an image have a second [SEP].
    length = min(config.pretrain.rows.length + 1, config.encoder.max_positions)
    rows = dataclasses.replace(config.pretrain.rows, next_sentence="nsp", length=length)
    return trained(data, folder, dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, rows=rows)))


def random_projection(data: media.DataSet, folder: Path) -> tuple[Path, Any]:
    """Random directions of a random subspace as the centroids of units freed of their mean and deviation."""
    learned = Codebook.load(folder.parent / "k-means" / "vocabulary", type(data.pretraining.corpus.extractor()))  # type: ignore[attr-defined]
    count, size = learned.centroids.shape
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(count, DIMENSIONS)) @ rng.normal(size=(DIMENSIONS, size))
    # As long as the units, whose numbers have deviation 1, so that the nearest centroid is the one in the most similar direction.
    centroids = directions * np.sqrt(size) / np.linalg.norm(directions, axis=1, keepdims=True)
    codebook = Codebook(learned.extractor, centroids.astype(np.float32), learned.mean, learned.deviation, "units")
    return trained(data, folder, media.with_steps(data.pretraining, STEPS[data.name]), codebook)


def hidden_layer(data: media.DataSet, folder: Path) -> tuple[Path, Any]:
    half = media.with_steps(data.pretraining, STEPS[data.name] // 2)
    first, _ = trained(data, folder / "first", half)
    return trained(data, folder, half, relabel=lambda reader, prepared: relabeled(first, reader, prepared))


def scratch(data: media.DataSet, folder: Path) -> tuple[Path, Any]:
    """Only the description of the model and its codebook are used."""
    return folder.parent / "k-means" / "pretrain", None


SCRATCH = "from scratch"
OBJECTIVES: dict[str, Callable[[media.DataSet, Path], tuple[Path, Any]]] = {
    "k-means": kmeans,
    SCRATCH: scratch,
    "k-means of shapes": shapes,
    "random projection": random_projection,
    "hidden layer": hidden_layer,
    "k-means, two halves": halves,
}


class Relabeled:
    """Prepared documents with other codes."""

    def __init__(self, source: Any, codes: Sequence[np.ndarray]) -> None:
        self._source, self._codes = source, codes
        self.tokens, self.single_sentence_documents = source.tokens, source.single_sentence_documents

    def __len__(self) -> int:
        return len(self._source)

    def fetch(self, indices: Sequence[int]) -> list[Document]:
        return [found._replace(tokens=self._codes[index]) for index, found in zip(indices, self._source.fetch(indices), strict=True)]


def relabeled(first: Path, reader: Reader, prepared: Prepared) -> Prepared:
    """Give units the codes of k-means over what a layer of the first model makes of them."""
    from sklearn.cluster import MiniBatchKMeans

    chosen = np.sort(np.random.default_rng(0).permutation(len(prepared.train))[:SAMPLED_DOCUMENTS]).tolist()
    sampled = np.concatenate(list(outputs(first, prepared.train, chosen)))
    kmeans = MiniBatchKMeans(len(reader.ordinary_ids), random_state=0, batch_size=4096, n_init=1, max_iter=30).fit(sampled)

    def codes(source: Any) -> Relabeled:
        found = [kmeans.predict(vectors) for vectors in outputs(first, source, range(len(source)))]
        return Relabeled(source, [(own + len(SPECIAL_TOKENS)).astype(np.uint16) for own in found])

    return dataclasses.replace(prepared, train=codes(prepared.train), valid=codes(prepared.valid))


def outputs(directory: Path, source: Any, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """What the layer makes of the units of each document, float32 [n, D]; units past the length of a row are left as zeros."""
    description, reader, params = load_model(directory, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    model, length = build(description, reader.vocab_size, ComputeConfig()), description.length

    @jax.jit
    def encode(batch: Any) -> Any:
        return model.apply({"params": params}, batch, every_layer=True, method="encode")[1][LAYER]

    for begin in range(0, len(indices), DOCUMENTS_AT_ONCE):
        documents = source.fetch(indices[begin : begin + DOCUMENTS_AT_ONCE])
        shape = (DOCUMENTS_AT_ONCE, length)
        tokens, units = np.zeros(shape, np.int32), np.zeros((*shape, documents[0].units.shape[1]), documents[0].units.dtype)
        counts = [min(len(document.tokens), length - 2) for document in documents]
        for row, (document, count) in enumerate(zip(documents, counts, strict=True)):
            tokens[row, : count + 2] = [reader.cls_id, *document.tokens[:count], reader.sep_id]
            units[row, 1 : count + 1] = document.units[:count]
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
        zeros = np.zeros(shape, np.int32)
        batch = {"tokens": tokens, "units": units, "positions": positions, "segments": zeros, "example_ids": (tokens > 0).astype(np.int32)}
        states = np.asarray(encode(batch), np.float32)
        for document, state, count in zip(documents, states, counts, strict=False):
            found = np.zeros((len(document.tokens), states.shape[-1]), np.float32)
            found[:count] = state[1 : count + 1]
            yield found


if __name__ == "__main__":
    main()
