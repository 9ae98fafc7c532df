"""Documents of text -> documents of tokens, on all cores."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bert_jax.config import CorpusConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text.sentences import Ends, split_sentences
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.modalities.text.words import encode_words

Key = TypeVar("Key")
Batch = list[tuple[Key, list[str]]]

_BATCH_CHARACTERS = 1 << 17
_BATCHES_BEFORE_PROCESSES = 16
"""A corpus of fewer batches is done before other processes have started."""


class TokenizedDocument(NamedTuple):
    """A document of n tokens and s sentences, without special tokens.

    Attributes:
        tokens: ids, uint16 or (vocabularies beyond 65,536) uint32 [n].
        sentence_starts: index of the first token of each sentence, int32 [s]; the first is 0.
        word_starts: true where a token begins a word, bool [n].
        unknown: characters of the text that became [UNK], in words that are too long and in others, int64 [2]; counted when the document
            is encoded and not recorded, so 0 in one that was read.
    """

    tokens: NDArray[np.unsignedinteger]
    sentence_starts: NDArray[np.int32]
    word_starts: NDArray[np.bool_]
    unknown: NDArray[np.int64]


@dataclass(frozen=True)
class DocumentEncoder:
    """Splits documents into sentences, sentences into tokens, and finds the words."""

    tokenizer: Tokenizer
    config: CorpusConfig

    def __call__(self, documents: list[list[str]]) -> list[TokenizedDocument]:
        """Tokens of each document (lists of paragraphs); a sentence without tokens is dropped."""
        split = [document_sentences(document, self.config.sentence_ends) for document in documents]
        ids, word_starts, lengths, unknown = encode_words(self.tokenizer, list(itertools.chain.from_iterable(split)), self.config.segmenter)
        tokens: NDArray[np.unsignedinteger] = ids.astype(token_dtype(self.tokenizer.vocab_size))
        tokenized = []
        token, sentence = 0, 0
        for sentences in split:
            document_lengths = lengths[sentence : sentence + len(sentences)]
            end = token + int(document_lengths.sum())
            starts = (np.cumsum(document_lengths) - document_lengths)[document_lengths > 0].astype(np.int32)
            lost = unknown[sentence : sentence + len(sentences)].sum(0)
            tokenized.append(TokenizedDocument(tokens[token:end], starts, word_starts[token:end], lost))
            token, sentence = end, sentence + len(sentences)
        return tokenized


def document_sentences(paragraphs: Iterable[str], ends: Ends) -> list[str]:
    """The sentences of a document; none reaches over the end of a paragraph."""
    return [sentence for paragraph in paragraphs for sentence in split_sentences(paragraph, ends)]


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest type that holds every token id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def encode(documents: Iterable[tuple[Key, list[str]]], encoder: DocumentEncoder) -> Iterator[tuple[Key, list[str], TokenizedDocument]]:
    """Documents (a key and paragraphs) with their tokens, in their order, made by as many processes as there are cores.

    A program that calls this on much text must be importable (`if __name__ == "__main__":`), as for every use of
    Python's `multiprocessing`.
    """
    rest = batches(documents)
    first = list(itertools.islice(rest, _BATCHES_BEFORE_PROCESSES))
    workers = cores()
    if len(first) < _BATCHES_BEFORE_PROCESSES or workers == 1:
        for batch in itertools.chain(first, rest):
            yield from _joined(batch, encoder([paragraphs for _, paragraphs in batch]))
        return
    # Not fork: the tokenizer, JAX and TFDS have threads, which a forked process does not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (encoder,)) as pool:
        pending: deque[tuple[Batch[Key], Future[list[TokenizedDocument]]]] = deque()
        try:
            for batch in itertools.chain(first, rest):
                pending.append((batch, pool.submit(_encode_batch, [paragraphs for _, paragraphs in batch])))
                while len(pending) > 2 * workers:
                    yield from _joined(*_result(pending))
            while pending:
                yield from _joined(*_result(pending))
        except BrokenProcessPool as error:
            raise InputError(
                "A process that tokenises the corpus was ended from outside. Either the memory ran out, or this was called from a script "
                'that runs again in every new process: put its main part under `if __name__ == "__main__":`.'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def batches(documents: Iterable[tuple[Key, list[str]]]) -> Iterator[Batch[Key]]:
    """The documents in lists of about as much text as is worth handing to another process."""
    batch: Batch[Key] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += sum(map(len, document[1]))
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _joined(batch: Batch[Key], tokenized: list[TokenizedDocument]) -> Iterator[tuple[Key, list[str], TokenizedDocument]]:
    for (key, paragraphs), document in zip(batch, tokenized, strict=True):
        yield key, paragraphs, document


def _result(pending: deque[tuple[Batch[Key], Future[list[TokenizedDocument]]]]) -> tuple[Batch[Key], list[TokenizedDocument]]:
    batch, future = pending.popleft()
    return batch, future.result()


_worker_encoder: DocumentEncoder


def _start_worker(encoder: DocumentEncoder) -> None:
    global _worker_encoder
    _worker_encoder = encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process a core is enough
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that is killed (kill -9) cannot stop its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode_batch(documents: list[list[str]]) -> list[TokenizedDocument]:
    return _worker_encoder(documents)
