"""Search a file of texts by meaning: embed it once, keep the vectors, and find the texts nearest to a query.

    python -m examples.embedding_search runs/demo/pretrain texts.txt "房间很好" --vectors=vectors.safetensors
"""

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import bert_jax

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("model", help="the directory of a model")
flags.add_argument("texts", type=Path, help="a file with one text per line")
flags.add_argument("query", help="what to search for")
flags.add_argument("--vectors", type=Path, required=True, help="where to keep the vectors; computed if the file does not exist")
flags.add_argument("--top-k", type=int, default=3, help="number of texts to print (default: %(default)s)")

if __name__ == "__main__":
    given = flags.parse_args()
    bert = bert_jax.load(given.model)
    texts = [line for line in given.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not given.vectors.exists():
        save_file({"vectors": bert.embed(texts, normalize=True)}, given.vectors)
    vectors = load_file(given.vectors)["vectors"]
    cosines = vectors @ bert.embed(given.query, normalize=True)
    for index in np.argsort(-cosines)[: given.top_k]:
        print(f"{cosines[index]:.3f}  {texts[index]}")
