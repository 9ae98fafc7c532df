"""The codebook of units: which code a unit gets, what a code stands for, and files that are not what they should be."""

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

from bert_jax.errors import InputError
from bert_jax.modalities.audio.slices import Slices
from bert_jax.modalities.image.patches import Patches
from bert_jax.modalities.media.codebook import FILE, SPECIAL_TOKENS, Codebook, _refined
from bert_jax.modalities.media.options import CodebookConfig
from bert_jax.modalities.media.pictures import contact_sheet

GRAY = Patches(size=8, patch=2, color=False, block=2)


def units(count: int = 600, seed: int = 0) -> NDArray[np.uint8]:
    """Units around a few brightnesses, so that there is something to find."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.choice([30, 120, 220], (count, 1)) + rng.normal(0, 20, (count, 4)), 0, 255).astype(np.uint8)


def learned(normalize: Any = "dimensions", size: int = 12, seed: int = 0) -> Codebook:
    return Codebook.learn(GRAY, units(), CodebookConfig(size=size, normalize=normalize, seed=seed))


def normalized(values: NDArray[np.uint8], normalize: str) -> NDArray[np.float64]:
    """What is compared, computed from the definition in double precision."""
    known = units().astype(np.float64)
    scaled = (values.astype(np.float64) - known.mean(0)) / known.std(0)
    if normalize == "units":
        scaled -= scaled.mean(1, keepdims=True)
        scaled /= np.maximum(scaled.std(1, keepdims=True), 1e-6)
    return scaled


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return learned()


def test_learning_is_deterministic_and_depends_on_the_seed(codebook: Codebook) -> None:
    again = learned()
    assert again.centroids.tobytes() == codebook.centroids.tobytes() and again.fingerprint == codebook.fingerprint
    assert learned(seed=1).fingerprint != codebook.fingerprint


@pytest.mark.parametrize("normalize", ["dimensions", "units"])
def test_a_code_is_the_nearest_centroid(normalize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_jax.modalities.media.codebook._ROWS_AT_ONCE", 7)
    codebook, asked = learned(normalize), units(100, seed=1)
    distances = ((normalized(asked, normalize)[:, None] - codebook.centroids.astype(np.float64)) ** 2).sum(2)
    found = codebook.codes(asked)
    assert found.dtype == np.int32 and len(set(found)) > 5
    np.testing.assert_array_equal(found - len(SPECIAL_TOKENS), distances.argmin(1))
    assert codebook.codes(asked[:0]).shape == (0,)


def test_codes_are_those_that_scikit_learn_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.cluster

    fitted = []

    class Kept(sklearn.cluster.MiniBatchKMeans):
        def fit(self, *arguments: Any, **options: Any) -> Any:
            fitted.append(self)
            return super().fit(*arguments, **options)

    monkeypatch.setattr(sklearn.cluster, "MiniBatchKMeans", Kept)
    codebook, asked = learned(), units(200, seed=2)
    # The mini-batches are refined over all units.
    initial, known = fitted[0].cluster_centers_, normalized(units(), "dimensions").astype(np.float32)
    refined = sklearn.cluster.KMeans(12, init=initial, n_init=1, max_iter=3, tol=0).fit(known)
    np.testing.assert_allclose(codebook.centroids, refined.cluster_centers_, atol=1e-5)
    assert refined.inertia_ < ((known - initial[fitted[0].predict(known)]) ** 2).sum()
    predicted = refined.predict(normalized(asked, "dimensions").astype(np.float32))
    np.testing.assert_array_equal(codebook.codes(asked) - len(SPECIAL_TOKENS), predicted)


def test_a_centroid_that_is_nearest_to_no_unit_stays() -> None:
    known = normalized(units(), "dimensions").astype(np.float32)
    refined = _refined(np.array([[0] * 4, [99] * 4], np.float32), known)
    np.testing.assert_allclose(refined, [known.mean(0), [99] * 4], atol=1e-6)


def test_codes_of_units_ignore_brightness_and_contrast() -> None:
    """With `units`: after the mean and deviation of the corpus are removed, an affine change of a unit changes nothing."""
    codebook = learned("units")
    codebook.mean[:], codebook.deviation[:] = 100, 50  # The same for all pixels, so that an affine change of pixels is one of units.
    shapes = np.array([[0, 10, 20, 30], [30, 0, 0, 0], [5, 5, 40, 40]])
    assert len(set(codebook.codes(shapes))) > 1
    np.testing.assert_array_equal(codebook.codes(shapes), codebook.codes(3 * shapes + 70))
    by_dimension = learned()
    assert (by_dimension.codes(shapes) != by_dimension.codes(3 * shapes + 70)).any()


def test_special_tokens_come_first(codebook: Codebook) -> None:
    assert codebook.vocab_size == 5 + 12
    assert codebook.tokens(range(7)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "0", "1"]
    assert [codebook.id(token) for token in codebook.tokens(range(17))] == list(range(17))
    assert (codebook.pad_id, codebook.unk_id, codebook.cls_id, codebook.sep_id, codebook.mask_id) == (0, 1, 2, 3, 4)
    assert codebook.ordinary_ids.tolist() == list(range(5, 17))
    assert codebook.decode([2, 5, 16, 3]) == "[CLS] 0 11 [SEP]"
    assert codebook.codes(units()).min() >= 5


@pytest.mark.parametrize("token", ["12", "-1", "²", "[CAT]", "", "9" * 5_000])
def test_there_is_no_other_token(codebook: Codebook, token: str) -> None:
    with pytest.raises(InputError, match=r"There is no code .*: the codes are 0 to 11\."):
        codebook.id(token)


def test_a_code_stands_for_the_mean_of_its_units() -> None:
    """With two groups of units, k-means finds their means, nearly; special tokens stand for nothing."""
    groups = np.repeat(np.array([[10, 10, 20, 20], [200, 190, 180, 170]], np.uint8), 50, axis=0)
    groups[::2] += 4
    codebook = Codebook.learn(GRAY, groups, CodebookConfig(size=2))
    prototypes = codebook.prototypes(np.array([4, *codebook.codes(groups[[0, -1]])]))
    assert np.isnan(prototypes[0]).all()
    np.testing.assert_allclose(prototypes[1:], [[12, 12, 22, 22], [202, 192, 182, 172]], atol=0.2)


def test_a_number_that_never_varies_is_no_division_by_zero() -> None:
    flat = units()
    flat[:, 2] = 7
    codebook = Codebook.learn(GRAY, flat, CodebookConfig(size=4))
    assert np.isfinite(codebook.centroids).all() and len(set(codebook.codes(flat))) == 4


def test_more_codes_than_distinct_units() -> None:
    with pytest.raises(InputError, match=r"only 3 distinct units, too few for vocabulary.size=4 codes: set .*size to at most 3"):
        Codebook.learn(GRAY, units()[[0, 1, 2, 0, 1]], CodebookConfig(size=4))


def test_units_are_counted_as_they_are_compared() -> None:
    """Four shapes at ten brightnesses and contrasts; all pixels have the same mean and deviation."""
    shapes = np.array([np.roll([0, 10, 20, 30], shift) for shift in range(4)])
    sample = np.concatenate([(1 + index % 3) * shapes + 5 * index for index in range(10)]).astype(np.uint8)
    assert Codebook.learn(GRAY, sample, CodebookConfig(size=5)).vocab_size == 5 + 5
    assert Codebook.learn(GRAY, sample, CodebookConfig(size=4, normalize="units")).vocab_size == 5 + 4
    with pytest.raises(InputError, match=r"only 4 distinct units, too few for vocabulary.size=5 codes"):
        Codebook.learn(GRAY, sample, CodebookConfig(size=5, normalize="units"))


def test_it_is_stored_whole(codebook: Codebook, tmp_path: Path) -> None:
    codebook.save(tmp_path)
    loaded = Codebook.load(tmp_path, Patches)
    assert loaded.fingerprint == codebook.fingerprint and loaded.extractor == GRAY and loaded.normalize == "dimensions"
    np.testing.assert_array_equal(loaded.codes(units(50, seed=3)), codebook.codes(units(50, seed=3)))
    assert Codebook.load(tmp_path, Patches).fingerprint == loaded.fingerprint


@pytest.mark.parametrize("changed", ["centroids", "mean", "deviation", "normalize", "extractor"])
def test_its_fingerprint_covers_everything(codebook: Codebook, changed: str) -> None:
    arrays = [codebook.centroids.copy(), codebook.mean.copy(), codebook.deviation.copy()]
    normalize, extractor = codebook.normalize, GRAY
    if changed == "normalize":
        normalize = "units"
    elif changed == "extractor":
        extractor = dataclasses.replace(GRAY, size=16)
    else:
        arrays[["centroids", "mean", "deviation"].index(changed)].flat[-1] += 1
    assert Codebook(extractor, *arrays, normalize).fingerprint != codebook.fingerprint


def test_one_without_a_checksum_loads(codebook: Codebook, tmp_path: Path) -> None:
    """As the first ones were written."""
    folder = rewritten(codebook, tmp_path)
    assert b"sha256" not in (folder / FILE).read_bytes()
    assert Codebook.load(folder, Patches).fingerprint == codebook.fingerprint


def test_none_in_the_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no codebook in {tmp_path}: it has no {FILE}\. Name the directory"):
        Codebook.load(tmp_path, Patches)


def rewritten(codebook: Codebook, folder: Path, settings: dict[str, Any] | None = None, **arrays: Any) -> Path:
    """Store the codebook with some of its arrays and settings replaced; None leaves one out."""
    codebook.save(folder)
    stored = load((folder / FILE).read_bytes()) | arrays
    values = {"of": "image", "normalize": "dimensions", "extractor": dataclasses.asdict(GRAY)} | (settings or {})
    kept = {name: array for name, array in stored.items() if array is not None}
    (folder / FILE).write_bytes(save(kept, {"settings": json.dumps({name: value for name, value in values.items() if value is not None})}))
    return folder


@pytest.mark.parametrize(
    ("settings", "arrays", "message"),
    [
        ({"of": "recording"}, {}, r"is for recordings, not for images\. Name another"),
        ({"of": None}, {}, r"is damaged or incomplete \('of'\)\. Restore it"),
        ({"normalize": "never"}, {}, "Restore it"),
        ({"extractor": {"size": 9}}, {}, r"is damaged or incomplete .*Restore it"),
        ({"extractor": {"sides": 9}}, {}, r"is damaged or incomplete .*Restore it"),
        ({"extractor": {"patch": "two"}}, {}, r"is damaged or incomplete .*Restore it"),
        ({"extractor": 3}, {}, r"is damaged or incomplete .*Restore it"),
        ({"extractor": {"size": 16, "patch": 4}}, {}, r"its units have 48 values.*Restore it"),
        ({}, {"mean": None}, r"is damaged or incomplete \('mean'\)\. Restore it"),
        ({}, {"mean": np.zeros(3, np.float32)}, "Restore it"),
        ({}, {"centroids": np.zeros((12, 5), np.float32)}, r"shape \[12, 5\], but its units have 4 values.*Restore it"),
        ({}, {"centroids": np.zeros((1, 4), np.float32)}, "Restore it"),
        ({}, {"centroids": np.zeros(4, np.float32)}, "Restore it"),
        ({}, {"centroids": np.full((12, 4), np.nan, np.float32)}, r"not finite float32.*Restore it"),
        ({}, {"centroids": np.full((12, 4), 1e20, np.float32)}, r"too large.*Restore it"),
        ({"sha256": "0" * 64}, {}, r"does not match its checksum: it is damaged\. Restore it"),
        ({}, {"centroids": np.zeros((12, 4), np.float64)}, r"not finite float32.*Restore it"),
        ({}, {"deviation": np.zeros(4, np.float32)}, r"deviation that is not positive.*Restore it"),
    ],
)
def test_damaged_ones_are_refused_by_name(
    codebook: Codebook, tmp_path: Path, settings: dict[str, Any], arrays: dict[str, Any], message: str
) -> None:
    folder = rewritten(codebook, tmp_path, settings, **arrays)
    with pytest.raises(InputError, match=message) as raised:
        Codebook.load(folder, Patches)
    assert str(folder / FILE) in str(raised.value) and "\n" not in str(raised.value)


def test_flipped_bits_never_end_in_a_traceback(codebook: Codebook, tmp_path: Path) -> None:
    """Every bit of the numbers is noticed. One of the header may be, in one line."""
    codebook.save(tmp_path)
    whole, rng = (tmp_path / FILE).read_bytes(), np.random.default_rng(0)
    refused = 0
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, header, 3), *rng.integers(header, len(whole), 60)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        (tmp_path / FILE).write_bytes(flipped)
        try:
            Codebook.load(tmp_path, Patches)
            assert place < header
        except InputError as error:
            refused += 1
            assert str(tmp_path / FILE) in str(error) and "\n" not in str(error)
    assert refused > header / 6
    (tmp_path / FILE).write_bytes(save(load(whole), {"settings": "[" * 100_000}))
    with pytest.raises(InputError, match=r"is damaged or incomplete .*Restore it"):
        Codebook.load(tmp_path, Patches)
    for size in (0, 7, 100, len(whole) - 1):
        (tmp_path / FILE).write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"is not a readable safetensors file .*Restore it"):
            Codebook.load(tmp_path, Patches)


@pytest.mark.parametrize("values", [{"size": 1}, {"size": 1 << 16}, {"seed": -1}])
def test_settings_that_make_no_sense(values: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        CodebookConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("extractor", "count"), [(Patches(size=8, patch=2), 64), (Slices(bands=40), 200), (Patches(size=8, patch=2), 2)])
def test_a_sheet_of_codes_fits_on_a_page_and_shows_them_all(extractor: Any, count: int) -> None:
    image = pytest.importorskip("PIL.Image")
    size = extractor.units.size
    # Units far below the mean are dark, on a white sheet.
    centroids = np.full((count, size), -3, np.float32)
    book = Codebook(extractor, centroids, np.zeros(size, np.float32), np.ones(size, np.float32), "dimensions")
    sheet = image.open(io.BytesIO(base64.b64decode(contact_sheet(book).partition(",")[2]))).convert("L")
    tile = extractor.tile(book.prototypes(np.array([len(SPECIAL_TOKENS)]))[0])
    dark = (np.asarray(sheet) < 128).sum()
    assert dark == count * (tile.mean(-1) < 128).sum() == count * tile.shape[0] * tile.shape[1]
    assert 1 <= sheet.width / sheet.height <= 6
