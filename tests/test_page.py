"""The page of a server, in a real browser: what a person does with the keyboard or a pointer, and what they read."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import _ENCODER, write_model
from served import KEY, serving

import bert_jax
from bert_jax.inference import Bert
from bert_jax.modalities.image.modality import Image
from bert_jax.modalities.image.patches import Patches
from bert_jax.modalities.media.codebook import Codebook
from bert_jax.model.directory import InputDescription, ModelDescription
from bert_jax.serving.page.document import assemble, assemble_alone

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

IMAGE = Image()
TAGS = ("DET", "NOUN", "VERB")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SECONDS = 20_000  # milliseconds
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tiny_pretrained: Path, tiny_classifier: Path) -> dict[str, Path]:
    folder = tiny_pretrained.parent
    tagger = write_model(folder / "tagger", ModelDescription("tagging", _ENCODER, 32, labels=TAGS))
    answerer = write_model(folder / "answerer", ModelDescription("answering", _ENCODER, 32))
    digits = _codebook()
    described = ModelDescription("pretraining", _ENCODER, 32, input=InputDescription.of(IMAGE, digits))
    seer = write_model(folder / "seer", described, reader=digits)
    return {"pretrain": tiny_pretrained, "moods": tiny_classifier, "tagger": tagger, "answerer": answerer, "seer": seer}


def _codebook() -> Codebook:
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(8, 4)).astype(np.float32)
    return Codebook(Patches(8, 2, False, 2), centroids, np.full(4, 128, np.float32), np.full(4, 64, np.float32), "dimensions")


def _picture(file: Path, seed: int) -> Path:
    from PIL import Image as pillow

    pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)).save(file)
    return file


@pytest.fixture(scope="module")
def bert(tiny_pretrained: Path) -> Bert:
    return bert_jax.load(tiny_pretrained)


@pytest.fixture(scope="module")
def url(models: dict[str, Path]) -> Iterator[str]:
    with serving(*(f"{name}={path}" for name, path in models.items())) as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Open]:
    """Opens the page with the key; whatever a test does, there is no error, and no request leaves the server."""
    contexts, faults, asked = [], [], []

    def open_page(unlocked: bool = True, **settings: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-US", "reduced_motion": "reduce"} | settings)
        context.set_default_timeout(SECONDS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        if unlocked:
            page.get_by_label("API key").or_(page.get_by_label("API 密钥")).fill(KEY)
            page.keyboard.press("Enter")
            page.locator("#fill .tokens button").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults
    assert asked and {one for one in asked if not one.startswith((f"{url}/", "data:", "blob:"))} == set()


def write(page: Any, text: str) -> None:
    """Type a text to mask in, and wait for its tokens."""
    page.locator("#fill textarea").fill(text)
    playwright.expect(page.locator("#fill .tokens")).to_have_text(text)


def words(page: Any) -> list[str]:
    return page.locator("#fill .tokens button").evaluate_all("found => found.map((button) => button.dataset.text)")


def settled(page: Any, name: str) -> None:
    page.locator(f"#{name}").scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    page.locator(f"#{name}:not([aria-busy])").wait_for()


def test_a_word_is_masked_and_the_guess_read(open_page: Open, bert: Bert) -> None:
    page = open_page()
    page.get_by_role("button", name="Unmask all").click()
    write(page, "the cat sat, 很好")
    assert words(page) == ["the", "cat", "sat", ",", "很", "好"]
    page.locator("#fill .tokens").get_by_role("button", name=re.compile("^cat")).click()
    page.locator("#fill .blanks li").nth(4).wait_for()
    guesses = bert.fill_mask("the [MASK] sat, 很好")[0]
    assert page.locator("#fill .blanks li b").all_text_contents() == [one.token for one in guesses]
    share = float(page.locator("#fill .blanks .share").first.text_content().removesuffix(" %"))
    assert share == pytest.approx(100 * guesses[0].probability, abs=0.51)
    assert page.locator("#fill .tokens button.masked").text_content() == guesses[0].token.removeprefix("##")

    # The mask stays on its word while the text before it changes; a second one is guessed beside it.
    page.locator("#fill textarea").fill("good, the cat sat, 很好")
    page.locator("#fill .masked[data-text=cat]:nth-of-type(4)").wait_for()
    page.locator("#fill .tokens").get_by_role("button", name=re.compile("^很")).click()
    page.locator("#fill .blanks article").nth(1).wait_for()
    both = bert.fill_mask("good, the [MASK] sat, [MASK]好")
    for blank, guesses in zip(page.locator("#fill .blanks article").all(), both, strict=True):
        assert blank.locator("b").all_text_contents() == [one.token for one in guesses]


def test_the_tint_is_the_surprisal(open_page: Open, bert: Bert) -> None:
    page = open_page()
    page.get_by_role("button", name="Unmask all").click()
    write(page, "the cat sat")
    page.locator("#fill .tokens button[aria-label*=surprisal]").nth(2).wait_for()
    labels = page.locator("#fill .tokens button").evaluate_all("found => found.map((button) => button.getAttribute('aria-label'))")
    bits = [-one.log_probability / np.log(2) for one in bert.score("the cat sat", tokens=True)]
    assert labels == [f"{word}, surprisal {own:.1f} bits" for word, own in zip(("the", "cat", "sat"), bits, strict=True)]
    assert f"{sum(bits):.1f} bits" in page.locator("#fill .total").text_content()
    page.get_by_label("Tint each token").uncheck()
    assert page.locator("#fill .tokens button[aria-label*=surprisal]").count() == 0


def test_the_keyboard_is_enough(open_page: Open) -> None:
    page = open_page(unlocked=False)
    assert page.evaluate("document.activeElement.id") == "key-field"
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    page.locator("#fill .tokens button").first.wait_for()
    page.locator("#fill textarea").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("the cat sat")
    page.locator("#fill [data-text=sat]").wait_for()
    for pressed in ("Tab", "ArrowRight", "Enter"):
        page.keyboard.press(pressed)
    assert page.evaluate("document.activeElement.dataset.text") == "cat"
    page.locator("#fill .blanks article").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.text") == "sat"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tint"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("👍🏿 good, 很好", ["👍🏿", "good", ",", "很", "好"]),
        ("</script><img src=x onerror=alert(1)> good", None),
        ("再也不来了,太差", list("再也不来了,太差")),
        ("👩‍👩‍👧 cafe\u0301 很", ["👩‍👩‍👧", "cafe\u0301", "很"]),
    ],
)
def test_places_are_those_of_what_a_person_sees(open_page: Open, bert: Bert, text: str, expected: list[str] | None) -> None:
    page = open_page()
    page.get_by_role("button", name="Unmask all").click()
    write(page, text)
    found = words(page)
    assert found == expected or expected is None
    assert "".join(found) == text.replace(" ", "") and page.locator("#fill img").count() == 0
    last = found[-1]
    page.locator("#fill .tokens button").last.click()
    page.locator("#fill .blanks article").first.wait_for()
    guesses = bert.fill_mask(text.removesuffix(last) + "[MASK]" * len(bert.tokenizer.encode(last).ids))[0]
    assert page.locator("#fill .blanks article").first.locator("b").all_text_contents() == [one.token for one in guesses]


def test_an_older_answer_does_not_replace_a_newer_one(open_page: Open) -> None:
    page = open_page()
    held: list[Any] = []
    settled(page, "classify")
    page.route("**/classify", lambda route: held.append(route))
    text = page.locator("#classify textarea").first
    for typed in ("the", "good"):
        with page.expect_request("**/classify"):
            text.fill(typed)
    page.wait_for_timeout(100)
    assert len(held) == 2
    for route, label in ((held[1], "new"), (held[0], "old")):
        route.fulfill(json={"model": "moods", "answers": [{"label": label, "probability": 1.0, "probabilities": {label: 1.0}}]})
        page.wait_for_timeout(100)
    assert page.locator("#classify .verdict b").all_text_contents() == ["new"]


def test_every_section_shows_what_the_model_answers(open_page: Open, models: dict[str, Path], bert: Bert) -> None:
    page = open_page()
    assert page.locator("nav a").all_text_contents() == [
        "Fill in the blank", "Masked and completed", "Next sentence", "Classification", "Tags", "Questions", "Similarity", "Attention"
    ]  # fmt: skip
    for name, texts in (
        ("next", ["the cat", "sat on the mat"]), ("classify", ["the cat"]), ("tag", ["👍 the cat"]), ("answer", ["cat", "👍 the cat sat"]),
        ("similar", ["good\nthe cat\n很好"]), ("attention", ["the cat"]),
    ):  # fmt: skip
        settled(page, name)
        for control, text in zip(page.locator(f"#{name} textarea").all(), texts, strict=False):
            control.fill(text)
        settled(page, name)
    follows = bert.next_sentence("the cat", "sat on the mat")
    assert page.locator("#next .share").first.text_content() == f"{100 * follows:.{int(follows < 0.1)}f}%"
    chosen = bert_jax.load(models["moods"]).classify("the cat").label
    assert page.locator("#classify .chosen b").all_text_contents() == [chosen]
    influence = [one.influence for one in bert_jax.load(models["moods"]).influence("the cat")]
    shown = page.locator("#classify .influence span").evaluate_all("found => found.map((one) => [one.title, one.classList[0]])")
    assert shown == [[f"{one:+.2f}".replace("-", "−"), "against" if one < 0 else "for"] for one in influence]
    spans = bert_jax.load(models["tagger"]).tag("👍 the cat")
    assert page.locator("#tag mark").all_text_contents() == [f"{span.text}{span.label}" for span in spans]
    answer = bert_jax.load(models["answerer"]).answer("cat", "👍 the cat sat")
    assert answer and page.locator("#answer mark").text_content() == answer.text
    vectors = bert.embed(["good", "the cat", "很好"], normalize=True)
    cosines = [float(cell) for cell in page.locator("#similar tbody td").all_text_contents()]
    np.testing.assert_allclose(np.reshape(cosines, (3, 3)), vectors @ vectors.T, atol=0.0051)
    page.locator("#attention").get_by_role("button", name="cat", exact=True).click()
    seen = bert.attention("the cat", layer=-1)
    row = seen.weights[0].mean(0)[2]
    said = f"cat looks at {seen.tokens[row.argmax()]} {100 * row.max():.0f}%"
    assert page.locator("#attention .total").text_content().startswith(said)
    assert page.locator("#attention figcaption").first.text_content().endswith(f"the strongest is {100 * row.max():.0f}%.")


def test_images_are_completed_and_compared(open_page: Open, models: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    files = [_picture(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    seer, page = bert_jax.load(models["seer"]), open_page()
    page.locator("#complete input").set_input_files(files[0])
    page.locator("#complete .pictures img").nth(2).wait_for()
    masked = IMAGE.with_mask(seer.tokenizer, files[0].read_bytes())
    expected = IMAGE.filled(seer.tokenizer, masked, seer.fill_mask(masked))
    shown = page.locator("#complete .pictures img").evaluate_all("found => found.map((one) => [one.src, one.alt])")
    assert shown == [[picture, caption] for picture, caption in zip(expected["pictures"], expected["captions"], strict=True)]
    assert page.locator("#complete .total").text_content() == expected["note"]
    page.locator("#similar select").select_option("seer (pre-trained model)")
    page.locator("#similar input").set_input_files(files)
    page.locator("#similar tbody tr").nth(2).wait_for()
    vectors = seer.embed(files, normalize=True)
    cosines = [float(cell) for cell in page.locator("#similar tbody td").all_text_contents()]
    np.testing.assert_allclose(np.reshape(cosines, (3, 3)), vectors @ vectors.T, atol=0.0051)
    # A path is no image, and neither is a text; neither names a file of this machine.
    headers = {"Authorization": f"Bearer {KEY}"}
    for texts, model, status, said in (
        (str(files[0]), None, 422, "bytes of each file in base64"), ("dGV4dA==", "seer", 422, "image"),
        ("dGV4dA==", "pretrain", 424, "reads texts"),
    ):  # fmt: skip
        answer = page.request.post(f"{page.url}complete", headers=headers, data={"texts": texts, "model": model})
        assert answer.status == status and said in answer.json()["error"] and str(tmp_path) not in answer.json()["error"]


def test_the_plane_holds_the_distances(open_page: Open, bert: Bert) -> None:
    page = open_page()
    settled(page, "similar")
    texts = ["good", "the cat", "很好"]
    page.locator("#similar textarea").fill("\n".join(texts))
    settled(page, "similar")
    centers = page.locator("#similar circle").evaluate_all("found => found.map((dot) => [dot.cx.baseVal.value, dot.cy.baseVal.value])")
    vectors = bert.embed(texts, normalize=True)
    # Three points lie on a plane, so no distance is lost.
    drawn, true = (np.linalg.norm(np.asarray(of)[[0, 0, 1]] - np.asarray(of)[[1, 2, 2]], axis=1) for of in (centers, vectors))
    np.testing.assert_allclose(drawn / drawn.max(), true / true.max(), atol=1e-3)
    assert "100%" in page.locator("#similar figcaption").text_content()


def test_a_mistake_is_explained_and_a_text_without_tokens_asks_nothing(open_page: Open, browser: Any, url: str) -> None:
    page = open_page()
    page.locator("#fill textarea").fill("\u200b")
    page.locator("#fill .note").get_by_text("cannot read any").wait_for()
    settled(page, "similar")
    page.locator("#similar textarea").fill("good")
    page.locator("#similar .note").get_by_text("at least two").wait_for()
    with browser.new_context() as context:  # on its own, because a browser reports every status of 401
        wrong = context.new_page()
        wrong.goto(url)
        wrong.get_by_label("API key").fill("wrong")
        wrong.keyboard.press("Enter")
        wrong.get_by_text("missing or wrong").first.wait_for()


def test_it_speaks_chinese(open_page: Open) -> None:
    page = open_page(locale="zh-CN")
    assert page.evaluate("document.documentElement.lang") == "zh" and page.locator("#fill h2").text_content() == "完形填空"
    assert "房间" in page.locator("#fill textarea").input_value()
    models = page.locator("#similar option")
    assert models.first.text_content() == "pretrain（预训练模型）"
    page.get_by_role("button", name="English").click()
    assert page.locator("#fill h2").text_content() == "Fill in the blank" and page.evaluate("document.documentElement.lang") == "en"
    assert models.first.text_content() == "pretrain (pre-trained model)"
    page.reload()
    assert page.locator("#fill h2").text_content() == "Fill in the blank"
    page.locator("#fill .tokens button").first.wait_for()


@pytest.mark.parametrize(("scheme", "locale", "viewport"), [("light", "en-US", DESKTOP), ("dark", "zh-CN", PHONE)])
def test_anyone_can_use_it(open_page: Open, scheme: str, locale: str, viewport: dict[str, int]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(color_scheme=scheme, locale=locale, viewport=viewport)
    for name in ("next", "classify", "tag", "answer", "similar", "attention"):
        settled(page, name)
    page.locator("#attention .tokens button").nth(1).click()
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sizes = page.locator("button:visible").evaluate_all("found => found.map((button) => [button.offsetWidth, button.offsetHeight])")
    assert np.min(sizes) >= 24


def test_the_page_is_saved_as_a_file_with_its_models(open_page: Open, browser: Any, bert: Bert, tmp_path: Path) -> None:
    page = open_page()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as one file").click()
    page.get_by_text("works without a server").wait_for()
    saved.value.save_as(tmp_path / "saved.html")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    for scheme, locale, viewport in (("dark", "en-US", DESKTOP), ("light", "zh-CN", PHONE)):
        with browser.new_context(color_scheme=scheme, locale=locale, viewport=viewport, offline=True, reduced_motion="reduce") as context:
            context.set_default_timeout(SECONDS)
            own, faults, asked = context.new_page(), [], []
            own.on("console", lambda message, faults=faults: faults.append(message.text))
            own.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
            own.on("request", lambda request, asked=asked: asked.append(request.url))
            own.goto((tmp_path / "saved.html").as_uri())
            own.locator("#fill .tokens button").first.wait_for()
            # What it cannot answer, it does not offer.
            assert own.locator("main > section").evaluate_all("found => found.map(({ id }) => id)") == [
                "fill", "next", "classify", "similar", "attention"
            ]  # fmt: skip
            for name in ("next", "classify", "similar", "attention"):
                settled(own, name)
            own.locator("#fill textarea").fill("the [MASK] sat, 很好")
            own.locator("#fill [data-text=sat][aria-label*=surprisal], #fill [data-text=sat][aria-label*=意外]").wait_for()
            guesses = bert.fill_mask("the [MASK] sat, 很好")[0]
            assert own.locator("#fill .blanks li b").all_text_contents() == [one.token for one in guesses]
            found = axe.Axe().run(own)
            assert found.violations_count == 0, found.generate_report()
            assert own.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert own.locator("#share:visible, .influence").count() == 0
            assert not faults and len(asked) == 1


def test_no_request_can_leave(browser: Any, url: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        blocked = page.evaluate("""async () => {
            const found = [];
            document.addEventListener('securitypolicyviolation', (event) => found.push(event.effectiveDirective));
            await fetch('http://127.0.0.1:1/').catch(() => 0);
            document.body.append(Object.assign(document.createElement('img'), { src: 'http://127.0.0.1:1/a.png' }));
            document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.intruder = true' }));
            await new Promise((done) => setTimeout(done, 200));
            return [found.sort(), window.intruder];
        }""")
    assert blocked == [["connect-src", "img-src", "script-src-elem"], None]


def test_the_document_is_whole() -> None:
    for document in (assemble(locked=False, watching=True)[0], assemble_alone("")):
        assert document.count("</script>") == document.count("</style>") == 1
        assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", document)
        assert "innerHTML" not in document and "eval(" not in document and not re.search("@(policy|lead|style|script|data)@", document)
        assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg|http-equiv", "", document)


def test_bytes_are_shown_as_the_characters_that_they_spell(browser: Any, tmp_path: Path) -> None:
    model = write_model(tmp_path / "bytes", ModelDescription("pretraining", _ENCODER, 32), kind="bytes")
    with serving(f"bytes={model}") as (_, port):
        page = browser.new_page(locale="en-US")
        page.set_default_timeout(SECONDS)
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Unmask all").click()
        write(page, "店é b")
        assert words(page) == ["店", "é", " ", "b"]
        page.locator("#fill .tokens button").first.click()
        page.locator("#fill .blanks article").nth(2).wait_for()
        guesses = bert_jax.load(model).fill_mask("[MASK][MASK][MASK]é b")
        assert page.locator("#fill .blanks li:first-child b").all_text_contents() == [mask[0].token for mask in guesses]
        octets = b"".join(bytes.fromhex(mask[0].token[3:5]) if len(mask[0].token) > 1 else mask[0].token.encode() for mask in guesses)
        assert page.locator("#fill .tokens button.masked").text_content() == octets.decode(errors="replace")
        page.close()
