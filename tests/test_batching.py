"""The queue of a server: what shares a batch, what is refused, and clients that leave."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from bert_jax.errors import InputError
from bert_jax.serving.batching import Batcher, Limits, QueueFull


class Echo:
    """A model that answers with the texts, once `open` is set, and refuses the text "bad"."""

    def __init__(self) -> None:
        self.open, self.batches = threading.Event(), list[tuple[str, list[str], dict[str, Any]]]()

    def ask(self, name: str, texts: Sequence[str], pairs: Sequence[str] | None = None, **options: Any) -> list[Any]:
        self.open.wait()
        self.batches.append((name, list(texts), options))
        if "bad" in texts:
            raise InputError("A text is bad.")
        return [*texts] if pairs is None else [*zip(texts, pairs, strict=True)]


@pytest.fixture
def echo() -> Echo:
    return Echo()


def batcher(echo: Echo, **limits: Any) -> Batcher:
    made = Batcher(echo, Limits(**{"wait": 0.0} | limits))
    # The first batch keeps the model busy until `open` is set, so that the requests behind it meet in the queue.
    made.submit("first", ["first"])
    while made.waiting:
        time.sleep(0.001)
    return made


@pytest.fixture
def queue(echo: Echo) -> Iterator[Batcher]:
    made = batcher(echo)
    yield made
    echo.open.set()
    made.close()


def test_equal_questions_share_a_batch_and_get_their_own_answers(echo: Echo, queue: Batcher) -> None:
    found = [queue.submit("embed", texts, normalize=True) for texts in (["a"], ["b", "c"], ["d"])]
    echo.open.set()
    assert [one.result() for one in found] == [["a"], ["b", "c"], ["d"]]
    assert echo.batches[1:] == [("embed", ["a", "b", "c", "d"], {"normalize": True})]


def test_pairs_options_and_questions_are_kept_apart(echo: Echo, queue: Batcher) -> None:
    asked = [
        queue.submit("embed", ["a"]), queue.submit("embed", ["b"], normalize=True), queue.submit("classify", ["c"]),
        queue.submit("classify", ["d"], ["e"]), queue.submit("embed", ["f"]),
    ]  # fmt: skip
    echo.open.set()
    assert [one.result() for one in asked] == [["a"], ["b"], ["c"], [("d", "e")], ["f"]]
    assert [texts for _, texts, _ in echo.batches[1:]] == [["a", "f"], ["b"], ["c"], ["d"]]


def test_options_without_an_order_share_nothing(echo: Echo, queue: Batcher) -> None:
    asked = [queue.submit("similar", [text], among={text: 1}) for text in "ab"]
    echo.open.set()
    assert [one.result() for one in asked] == [["a"], ["b"]] and len(echo.batches) == 3


def test_only_the_sender_of_a_bad_text_is_told(echo: Echo, queue: Batcher) -> None:
    good, bad, other = (queue.submit("embed", [text]) for text in ("good", "bad", "other"))
    echo.open.set()
    assert good.result() == ["good"] and other.result() == ["other"]
    with pytest.raises(InputError, match="bad"):
        bad.result()
    assert queue.submit("embed", ["next"]).result() == ["next"]


def test_a_client_that_leaves_costs_nothing_and_stops_nobody(echo: Echo, queue: Batcher) -> None:
    leaves, stays = queue.submit("embed", ["leaves"]), queue.submit("embed", ["stays"])
    assert leaves.cancel()
    echo.open.set()
    assert stays.result() == ["stays"] and queue.submit("embed", ["next"]).result() == ["next"]
    assert all("leaves" not in texts for _, texts, _ in echo.batches)


def test_the_queue_is_bounded_but_takes_any_single_request(echo: Echo) -> None:
    full = batcher(echo, waiting=3)
    large = full.submit("embed", ["a"] * 5)
    with pytest.raises(QueueFull):
        full.submit("embed", ["b"])
    echo.open.set()
    assert large.result() == ["a"] * 5 and full.submit("embed", ["b"]).result() == ["b"]
    full.close()


def test_batches_do_not_exceed_their_size_unless_a_request_does(echo: Echo) -> None:
    made = batcher(echo, texts=3)
    asked = [made.submit("embed", [name] * count) for name, count in (("a", 2), ("b", 2), ("c", 1), ("d", 7))]
    echo.open.set()
    assert [len(one.result()) for one in asked] == [2, 2, 1, 7]
    assert [texts for _, texts, _ in echo.batches[1:]] == [["a", "a", "c"], ["b", "b"], ["d"] * 7]
    made.close()


def test_closing_answers_what_waits_and_takes_no_more(echo: Echo) -> None:
    made = batcher(echo)
    waiting = made.submit("embed", ["a"])
    echo.open.set()
    made.close()
    assert waiting.result(0) == ["a"] and not made.alive
    with pytest.raises(QueueFull):
        made.submit("embed", ["b"])


def test_a_request_waits_for_others_but_not_longer_than_allowed(echo: Echo) -> None:
    echo.open.set()
    made = Batcher(echo, Limits(wait=0.2))
    begun = time.monotonic()
    together = [made.submit("embed", [text]) for text in "ab"]
    assert [one.result(10) for one in together] == [["a"], ["b"]]
    assert time.monotonic() - begun >= 0.2 and len(echo.batches) == 1
    made.close()


def test_a_fault_of_the_model_ends_neither_the_thread_nor_other_requests(echo: Echo) -> None:
    echo.open.set()
    made = Batcher(echo, Limits(wait=0.0))
    with pytest.raises(ValueError, match="zip"):
        made.submit("classify", ["a", "b"], ["c"]).result()
    assert made.submit("embed", ["a"]).result() == ["a"] and made.alive
    made.close()
