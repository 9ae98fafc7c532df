"""Sources of raw text beside files: the demo and TFDS data sets, prepared or not."""

import numpy as np
import pytest

from bert_jax.config import CorpusConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text.modality import documents
from bert_jax.modalities.text.sources import open_source


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A TFDS data set with text and titles, prepared as ArrayRecord."""
    import tensorflow_datasets as tfds

    class TinyArticles(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            columns = {"title": tfds.features.Text(), "text": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(columns), disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._examples(25), "extra": self._examples(5)}

        def _examples(self, count):
            for i in range(count):
                yield i, {"title": f"Title {i}", "text": f"Article {i} begins.\n\nIt ends. 完了。"}

        def _generate_examples(self):
            raise NotImplementedError

    class TinyNumbers(TinyArticles):
        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"number": np.int64}))

        def _examples(self, count):
            for i in range(count):
                yield i, {"number": i}

    place = tmp_path_factory.mktemp("tfds")
    for builder in (TinyArticles, TinyNumbers):
        builder(data_dir=place, file_format="array_record").download_and_prepare()
    tfds.core.add_data_dir(place)
    return place


def test_a_tfds_text_is_documents_of_its_title_and_paragraphs(stock):
    config = CorpusConfig(source="tfds:tiny_articles", valid_fraction=0.2)
    both = [document for split in ("train", "valid") for document in documents(config, split)]
    assert len(both) == 25
    assert ["Title 3", "Article 3 begins.", "It ends.", "完了。"] in both


def test_tfds_splits_are_named_in_brackets(stock):
    source = open_source("tfds:tiny_articles[train+extra]", CorpusConfig())
    assert len(list(source.documents())) == 30
    assert source.identity() != open_source("tfds:tiny_articles", CorpusConfig()).identity()


def test_parts_are_the_whole(stock, monkeypatch):
    monkeypatch.setattr("bert_jax.data.tfds._PART", 10)
    source = open_source("tfds:tiny_articles[train+extra[1:]]", CorpusConfig())
    assert [len(list(part.documents())) for part in source.parts()] == [10, 10, 5, 4]
    assert [document for part in source.parts() for document in part.documents()] == list(source.documents())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_articles[test]", "no split 'test'; it has train, extra"),
        ("tiny_numbers", "no column 'text'; its columns are number"),
        ("no_such_articles", "no data set 'no_such_articles'"),
    ],
)
def test_a_tfds_text_that_is_not_there_is_named(stock, name, message):
    with pytest.raises(InputError, match=message):
        list(open_source(f"tfds:{name}", CorpusConfig()).documents())


def test_a_stock_data_set_that_needs_tensorflow_says_what_to_do(stock, monkeypatch):
    monkeypatch.setattr("bert_jax.data.tfds._has_tensorflow", lambda: False)
    with pytest.raises(InputError, match=r"imdb_reviews is not prepared.*pip install tensorflow.*tfds build imdb_reviews --file_format"):
        list(open_source("tfds:imdb_reviews", CorpusConfig()).documents())


def test_the_demo_is_a_source(stock):
    count = {name: sum(1 for _ in open_source(name, CorpusConfig()).documents()) for name in ("demo", "demo:reviews", "demo:newspaper")}
    assert count["demo"] == count["demo:reviews"] + count["demo:newspaper"]
    with pytest.raises(InputError, match="demo:poems does not exist"):
        open_source("demo:poems", CorpusConfig()).stored_bytes  # noqa: B018
