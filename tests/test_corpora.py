"""Corpora: the records are the text, the splits are apart, and no cache is stale, halved or damaged."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import CorpusConfig, VocabularyConfig
from bert_jax.data.records import encoding
from bert_jax.errors import InputError
from bert_jax.modalities.text.modality import Text, documents
from bert_jax.modalities.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from bert_jax.storage import streams as files

RNG = np.random.default_rng(0)
LETTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"


def make_document(sentences):
    return "".join("".join(RNG.choice(list(LETTERS), RNG.integers(3, 12))) + "。" for _ in range(sentences))


def write_corpus(path, count, sentences=3):
    texts = [make_document(sentences) for _ in range(count)]
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return texts


def everything(prepared):
    return [document for source in (prepared.train, prepared.valid) for document in source.fetch(range(len(source)))]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([LETTERS * 2 + "。" * 2 + "word words wordy"], VocabularyConfig(kind="wordpiece", size=200), show_progress=False)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "text").mkdir()
    write_corpus(tmp_path / "text" / "a.txt", 60)
    return CorpusConfig(source=str(tmp_path / "text"), segmenter="characters", valid_fraction=0.2)


@pytest.fixture
def prepared(config, tokenizer, tmp_path):
    return Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)


def test_records_are_the_tokens_of_the_text(prepared, config, tokenizer):
    for split, source in (("train", prepared.train), ("valid", prepared.valid)):
        raw = list(documents(config, split))
        assert len(raw) == len(source) > 0
        for sentences, document in zip(raw, source.fetch(range(len(source))), strict=True):
            encodings = [tokenizer.encode(sentence) for sentence in sentences]
            assert document.tokens.dtype == np.uint16
            np.testing.assert_array_equal(document.tokens, np.concatenate([e.ids for e in encodings]))
            np.testing.assert_array_equal(document.word_starts, np.concatenate([e.word_starts for e in encodings]))
            np.testing.assert_array_equal(document.sentence_starts, np.cumsum([0, *(len(e.ids) for e in encodings[:-1])]))


def test_info_counts_what_the_records_hold(prepared, tokenizer):
    for split, source in (("train", prepared.train), ("valid", prepared.valid)):
        read = source.fetch(range(len(source)))
        info = prepared.info[split]
        assert info["documents"] == len(read)
        assert info["sentences"] == source.sentences == sum(len(document.sentence_starts) for document in read)
        assert info["tokens"] == source.tokens == sum(len(document.tokens) for document in read)
        assert info["unknown_tokens"] == sum(int((document.tokens == tokenizer.unk_id).sum()) for document in read)
    assert (prepared.path / "metadata.json").exists()


def test_documents_are_read_at_random_alone_or_together_and_by_other_processes(prepared):
    alone = [prepared.train[i] for i in (7, 0, 7)]
    assert same(alone, prepared.train.fetch(np.array([7, 0, 7])))
    assert same(alone, pickle.loads(pickle.dumps(prepared.train)).fetch([7, 0, 7]))
    with pytest.raises(IndexError):
        prepared.train[len(prepared.train)]


def test_documents_without_tokens_and_single_sentences_are_counted(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("\u0007\u0008\n\n天地。玄黄。\n\n天地玄黄宇宙\n\n天天\u0002\n\n地龘地。\n", encoding="utf-8")
    prepared = Text().prepare(CorpusConfig(source=str(tmp_path / "a.txt"), segmenter="characters"), tokenizer, tmp_path / "data", False)
    total = {name: prepared.info["train"][name] + prepared.info["valid"][name] for name in prepared.info["train"]}
    assert (total["documents"], total["empty_documents"], total["single_sentence_documents"], total["unknown_tokens"]) == (4, 1, 3, 1)


def test_preparing_again_reads_what_is_there(prepared, config, tokenizer, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in prepared.path.rglob("*")}
    again = Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)
    assert again.path == prepared.path and again.info == prepared.info and same(everything(again), everything(prepared))
    assert before == {path: path.stat().st_mtime_ns for path in prepared.path.rglob("*")}


@pytest.mark.parametrize("change", ["a file is added", "a letter changes", "sentence_ends", "valid_fraction", "vocabulary", "valid_source"])
def test_other_text_or_settings_are_never_answered_from_the_cache(prepared, config, tokenizer, tmp_path, change):
    path = tmp_path / "text" / "a.txt"
    stat = path.stat()
    if change == "a file is added":
        write_corpus(tmp_path / "text" / "b.txt", 3)
    elif change == "a letter changes":
        path.write_text(path.read_text(encoding="utf-8").replace("天", "地"), encoding="utf-8")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert path.stat().st_size == stat.st_size
    elif change == "vocabulary":
        tokenizer = Tokenizer.train([LETTERS[:20] * 2], VocabularyConfig(size=100), show_progress=False)
    elif change == "valid_source":
        write_corpus(tmp_path / "held_out.txt", 3)
        config = replace(config, valid_source=str(tmp_path / "held_out.txt"))
    else:
        config = replace(config, **{"sentence_ends": {"sentence_ends": "clauses"}, "valid_fraction": {"valid_fraction": 0.5}}[change])
    changed = Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)
    assert changed.path != prepared.path
    if change != "sentence_ends":
        assert not same(everything(changed), everything(prepared))


def test_held_out_documents_are_a_fair_share_apart_whatever_the_order(tmp_path):
    texts = write_corpus(tmp_path / "a.txt", 3000, sentences=1)
    (tmp_path / "b.txt").write_text("\n\n".join(reversed(texts + texts[:500])), encoding="utf-8")
    sides = []
    for name in ("a.txt", "b.txt"):
        config = CorpusConfig(source=str(tmp_path / name), valid_fraction=0.1)
        sides.append({split: {"".join(document) for document in documents(config, split)} for split in ("train", "valid")})
    assert sides[0] == sides[1]
    assert not sides[0]["train"] & sides[0]["valid"]
    assert sides[0]["train"] | sides[0]["valid"] == set(texts)
    assert 0.08 < len(sides[0]["valid"]) / len(set(texts)) < 0.12


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_small_corpus_still_has_both_splits(tmp_path, fraction):
    write_corpus(tmp_path / "a.txt", 4)
    config = CorpusConfig(source=str(tmp_path / "a.txt"), valid_fraction=fraction)
    sizes = {split: len(list(documents(config, split))) for split in ("train", "valid")}
    assert sorted(sizes.values()) == [1, 3] and (sizes["valid"] == 1) == (fraction < 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n", "contains no text"),
        ("一。\n二。", "only one document"),
        ("一。\n\n一。\n", "only one document"),
        ("一。\n\n二\udcff", "not UTF-8 at byte"),
    ],
)
def test_a_corpus_that_cannot_be_divided_or_read_is_named(tmp_path, tokenizer, content, message):
    (tmp_path / "a.txt").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=f"{tmp_path / 'a.txt'}.*{message}"):
        Text().prepare(CorpusConfig(source=str(tmp_path / "a.txt"), segmenter="characters"), tokenizer, tmp_path / "data", False)
    assert not list((tmp_path / "data").rglob("*.array_record*"))


def test_a_split_without_tokens_is_an_error(tmp_path, tokenizer):
    write_corpus(tmp_path / "a.txt", 3)
    (tmp_path / "valid.txt").write_text("\u0007\n")
    config = CorpusConfig(source=str(tmp_path / "a.txt"), valid_source=str(tmp_path / "valid.txt"), segmenter="characters")
    with pytest.raises(InputError, match="No document of the corpus's valid data has any tokens"):
        Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)


def test_a_separate_held_out_text_is_held_out_whole(config, tokenizer, tmp_path):
    write_corpus(tmp_path / "valid.txt", 7)
    prepared = Text().prepare(replace(config, valid_source=str(tmp_path / "valid.txt")), tokenizer, tmp_path / "data", show_progress=False)
    assert (len(prepared.train), len(prepared.valid)) == (60, 7)


def test_held_out_text_that_stands_in_the_training_text_is_told_left_out_or_refused(tokenizer, tmp_path, capsys):
    texts = write_corpus(tmp_path / "a.txt", 20)
    held_out = [texts[3], texts[7][:5] + " " + texts[7][5:], "天地玄黄。宇宙洪荒。"]  # white space aside
    (tmp_path / "valid.txt").write_text("\n\n".join([*held_out, held_out[0]]), encoding="utf-8")
    names = {"source": str(tmp_path / "a.txt"), "valid_source": str(tmp_path / "valid.txt")}
    config = CorpusConfig(**names, segmenter="characters")
    told = Text().prepare(config, tokenizer, tmp_path / "data")
    assert (len(told.train), len(told.valid), told.info["train"]["leaked_documents"]) == (20, 4, 2)
    assert "Warning: 2 training documents also appear in the held-out data" in capsys.readouterr().err
    without = Text().prepare(replace(config, leaks="leave_out"), tokenizer, tmp_path / "data")
    assert (len(without.train), len(without.valid), without.info["train"]["leaked_documents"]) == (18, 4, 2)
    assert "Excluded 2 training documents" in capsys.readouterr().err
    assert without.path != told.path, "other records"
    assert len(list(documents(replace(config, leaks="leave_out"), "train"))) == 18, "for the vocabulary too"
    with pytest.raises(InputError, match=r"2 documents of .*a\.txt also appear in the held-out .*valid\.txt, and corpus\.leaks=refuse"):
        Text().prepare(replace(config, leaks="refuse"), tokenizer, tmp_path / "data", show_progress=False)
    (tmp_path / "valid.txt").write_text(held_out[2], encoding="utf-8")
    clean = Text().prepare(replace(config, leaks="refuse"), tokenizer, tmp_path / "data")
    assert clean.info["train"]["leaked_documents"] == 0 and "held-out data" not in capsys.readouterr().err


def test_what_is_known_of_the_records_is_checked(prepared, config, tokenizer, tmp_path):
    file = prepared.path / "metadata.json"
    file.write_text(file.read_text().replace('"tokens": ', '"tokens": 1'))
    with pytest.raises(InputError, match=r"metadata\.json has changed since it was written.*remove .* and run the same command again"):
        Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "foreign"])
def test_a_damaged_shard_is_named_with_the_remedy(prepared, config, tokenizer, tmp_path, damage):
    shard = next(prepared.path.glob("*train*"))
    whole = shard.read_bytes()
    if damage == "cut":
        shard.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # in the padding, which no reader looks at
    elif damage == "gone":
        shard.unlink()
    else:
        other = Text().prepare(replace(config, valid_fraction=0.3), tokenizer, tmp_path / "other", show_progress=False)
        shard.write_bytes(next(other.path.glob("*train*")).read_bytes())
        assert shard.stat().st_size == len(whole)  # and sound in itself
    what = {"cut": "bytes instead of", "flipped": "wrong SHA-256", "gone": "is missing", "foreign": "wrong SHA-256"}[damage]
    with pytest.raises(InputError, match=f"{shard} .*{what}.*delete the folder {prepared.path}"):
        Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)


@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json"])
@pytest.mark.parametrize("content", ["", "null", '{"split', '{"shards": {}, "splits": [], "train": 1}'])
def test_a_damaged_description_is_named_with_the_remedy(prepared, config, tokenizer, tmp_path, name, content):
    (prepared.path / name).write_text(content)
    with pytest.raises(InputError, match=f"{prepared.path / name} has changed since it was written.*remove {prepared.path}"):
        Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)
    (prepared.path / "SHA256SUMS").unlink()  # as an older version leaves it
    with pytest.raises(InputError, match=f"prepared corpus in {prepared.path} is damaged.*delete the folder"):
        Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)


def test_a_shard_that_is_damaged_after_the_start_is_named_when_it_is_read(prepared):
    shard = next(prepared.path.glob("*train*"))
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(InputError, match=f"{shard} was damaged after startup.*delete the folder {prepared.path}"):
        prepared.train.fetch([3, 4])


def test_text_that_changes_while_it_is_read_is_not_kept(config, tokenizer, tmp_path, monkeypatch):
    def growing(documents, encoder):
        write_corpus(tmp_path / "text" / "b.txt", 3)
        return encoding.encode(documents, encoder)

    monkeypatch.setattr("bert_jax.data.records.builder.encode", growing)
    with pytest.raises(InputError, match="changed during preparation"):
        Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)
    assert not list((tmp_path / "data").rglob("*.array_record*"))


def test_a_folder_without_its_description_is_made_anew(prepared, config, tokenizer, tmp_path):
    before = everything(prepared)
    (prepared.path / "dataset_info.json").unlink()
    assert same(everything(Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)), before)


def test_large_vocabularies_keep_their_ids(tmp_path):
    words = [f"w{i}" for i in range(70_000)]
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *words]) + "\n")
    (tmp_path / "a.txt").write_text("w69999 w1.\n\nw69998 w2.\n\nw3 w69997.\n")
    tokenizer = Tokenizer.load(tmp_path / "vocab.txt")
    prepared = Text().prepare(CorpusConfig(source=str(tmp_path / "a.txt"), segmenter="characters"), tokenizer, tmp_path / "data", False)
    found = {token for document in everything(prepared) for token in tokenizer.tokens(document.tokens)}
    assert {"w69999", "w69998", "w69997"} <= found


def test_words_of_the_segmenter_are_kept_as_word_starts(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("天地\u200b玄黄宇宙\u200b洪。\n\n日月。\n", encoding="utf-8")
    config = CorpusConfig(source=str(tmp_path / "a.txt"), segmenter="marked")
    read = everything(Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False))
    by_tokens = {tuple(tokenizer.tokens(document.tokens)): document.word_starts.tolist() for document in read}
    assert by_tokens[tuple("天地玄黄宇宙洪。")] == [True, False, True, False, False, False, True, True]


def test_many_processes_make_the_same_records_in_the_same_order(config, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH_SIZE", 200)
    alone = Text().prepare(config, tokenizer, tmp_path / "alone", show_progress=False)
    monkeypatch.setattr(encoding, "_BATCHES_BEFORE_PROCESSES", 2)
    monkeypatch.setattr(encoding, "cores", lambda: 2)
    together = Text().prepare(config, tokenizer, tmp_path / "together", show_progress=False)
    assert same(everything(alone), everything(together))
    counts = [{split: prepared.info[split] for split in ("train", "valid")} for prepared in (alone, together)]
    assert counts[0] == counts[1]


def test_memory_does_not_grow_with_the_corpus(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH_SIZE", 4000)
    monkeypatch.setattr(encoding, "_BATCHES_BEFORE_PROCESSES", 2)
    monkeypatch.setattr(encoding, "cores", lambda: 1)
    monkeypatch.setattr(files, "_CHUNK", 4096)
    sizes, peaks = [], []
    for count in (50, 800, 3200):  # the first for what is imported and kept at first use, the second fills all buffers
        write_corpus(tmp_path / f"{count}.txt", count, sentences=20)
        sizes.append((tmp_path / f"{count}.txt").stat().st_size)
        config = CorpusConfig(source=str(tmp_path / f"{count}.txt"), segmenter="characters")
        gc.collect()
        gc.freeze()  # beside the heap of all other tests, cycles would be left for long
        tracemalloc.start()
        try:
            Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
            gc.unfreeze()
    # How full the buffers between threads are depends on timing; a corpus held in memory takes more than its own size.
    assert peaks[2] - peaks[1] < (sizes[2] - sizes[1]) / 2


def test_progress_says_megabytes_a_second_and_nothing_goes_to_standard_output(config, tokenizer, tmp_path, capsys):
    Text().prepare(config, tokenizer, tmp_path / "data")
    shown = capsys.readouterr()
    assert "prepared 60 documents" in shown.err and "MB/s" in shown.err
    assert shown.out == ""


SCRIPT = """
import sys
from pathlib import Path
from bert_jax.config import CorpusConfig
from bert_jax.data.records import encoding
from bert_jax.modalities.text.modality import Text
from bert_jax.modalities.text.tokenizer import Tokenizer

if __name__ == "__main__":
    encoding._BATCH_SIZE, encoding._BATCHES_BEFORE_PROCESSES, encoding.cores = 2000, 2, lambda: 2
    source, vocabulary, data = sys.argv[1:]
    prepared = Text().prepare(CorpusConfig(source=source, segmenter="characters"), Tokenizer.load(vocabulary), Path(data))
    print(len(prepared.train) + len(prepared.valid))
"""


def test_a_killed_preparation_leaves_no_workers_and_starts_again(tmp_path, tokenizer):
    write_corpus(tmp_path / "a.txt", 3000, sentences=20)
    tokenizer.save(tmp_path / "vocabulary")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "a.txt"), str(tmp_path / "vocabulary"), str(tmp_path / "data")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("data/documents/*/*incomplete*/*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = _children(killed.pid)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert workers
    assert not list(tmp_path.glob("data/documents/*/1.0.0"))
    # Two at once: one does the work, the other waits for it.
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [out for out, _ in outputs] == ["3000\n", "3000\n"]
    assert sum("prepared 3,000 documents" in err for _, err in outputs) == 1
    assert not list(tmp_path.glob("data/documents/*/*incomplete*"))
    deadline = time.monotonic() + 30
    while (left := [pid for pid in workers if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def _children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _runs(pid):
    """Whether the process is alive: in a container nobody may collect an orphan that has ended, and it stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
