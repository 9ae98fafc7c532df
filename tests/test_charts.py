"""Charts: ticks, thinning, and marks where they belong."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bert_jax.report.svg import BOTTOM, HEIGHT, LEFT, MOST_POINTS, RIGHT, TOP, WIDTH, Chart, Series, _labels, draw, picture, thin, ticks


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 8))
def test_ticks_are_round_few_and_enclose(low, span, most):
    assume(span >= 1e-6 * abs(low))  # a double tells ticks apart, and their distance can be read off
    high = low + span
    marks = ticks(low, high, most)
    step = marks[1] - marks[0]
    assert marks[0] <= low + 1e-9 * abs(low) and marks[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(marks) <= most + 1
    assert f"{step:.0e}"[0] in "125" and f"{step:.0e}".startswith(f"{step:.3e}"[0])


@pytest.mark.parametrize(
    ("values", "percent", "labels"),
    [
        ((0, 5000, 10_000), False, ["0", "5k", "10k"]),
        ((0, 2000, 4000), False, ["0", "2000", "4000"]),
        ((0, 0.5e-4, 1e-4), False, ["0", "0.5e-4", "1.0e-4"]),
        ((4.0, 4.5, 5.0), False, ["4.0", "4.5", "5.0"]),
        ((0.0, 0.1), True, ["0%", "10%"]),
        ((0.785, 0.79, 0.795), True, ["78.5%", "79.0%", "79.5%"]),
        ((0, 1e6, 2e6), False, ["0", "1M", "2M"]),
    ],
)
def test_labels_share_a_unit(values, percent, labels):
    assert _labels(values, percent) == labels


@pytest.mark.parametrize("size", [1, 3, MOST_POINTS, MOST_POINTS + 1, 3000, 100_003])
def test_thinning_keeps_ends_mean_and_extremes(size):
    points = [(float(step), float((step * 7919) % 101)) for step in range(size)]
    thinned = thin(points)
    assert len(thinned) == min(size, MOST_POINTS)
    assert thinned[0][:2] == points[0] and thinned[-1][:2] == points[-1]
    assert min(low for *_, low, _ in thinned) == min(value for _, value in points)
    assert max(high for *_, high in thinned) == max(value for _, value in points)
    assert [step for step, *_ in thinned] == sorted(step for step, *_ in thinned)
    assert all(low <= mean <= high for _, mean, low, high in thinned)


def pixels(svg: str) -> list[tuple[float, float]]:
    pairs = [pair for points in re.findall(r' points="([^"]+)"', svg) for pair in points.split()]
    circles = re.findall(r'cx="([^"]+)" cy="([^"]+)"', svg)
    return [(float(x), float(y)) for x, y in [*(pair.split(",") for pair in pairs), *circles]]


@pytest.mark.parametrize("size", [1, 2, 3, 3000])
@pytest.mark.parametrize(
    "value", [lambda step: 3.0, lambda step: 1 / step, lambda step: -step * 1e6, lambda step: 1e-7 * step, lambda step: 0.0]
)
def test_everything_is_drawn_inside_the_frame(size, value):
    points = [(float(step), value(step)) for step in range(10, 10 * size + 10, 10)]
    svg = draw(Chart("Loss", [Series("training", points), Series("held out", points[:3], "scratch", held_out=True)], level=("level", 0.5)))
    assert pixels(svg)
    for x, y in pixels(svg):
        assert LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM
    assert svg.count("<circle") >= min(size, 3), "held-out measurements carry marks"
    assert ("<polygon" in svg) == (size == 3000), "what was thinned out shows its range"
    assert len(svg) < 60_000


def test_higher_values_are_higher_up_and_later_steps_further_right():
    (x1, y1), (x2, y2) = pixels(draw(Chart("Accuracy", [Series("training", [(1, 0.2), (2, 0.8)])], percent=True)))[:2]
    assert x1 < x2 and y1 > y2


def test_no_points_no_chart_and_one_series_needs_no_legend():
    assert draw(Chart("Loss", [Series("training", [])])) == ""
    assert '<div class="legend"></div>' in draw(Chart("Loss", [Series("training", [(1, 1.0)]), Series("held out", [])]))


def test_names_are_escaped():
    svg = draw(Chart("<b>", [Series('"<i>', [(1, 1.0)]), Series("<u>", [(1, 2.0)])], level=("<s>", 1.0)))
    assert not re.search(r"<(b|u|s|i)>", svg)


def test_a_picture_is_a_file_of_its_own_with_a_logarithmic_axis():
    runs = [("a<b", "pretrained", [(5, 4.0), (20, 3.0), (80, 2.5)]), ("mini", "fourth", [(5, 5.0), (80, 2.0)]), ("none", "third", [])]
    svg = picture(Chart("Bits & characters", [Series(name, points, run, held_out=True) for name, run, points in runs]), "minutes")
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Bits & characters", "a<b", "mini", "minutes", "5", "20", "80"} <= set(texts) and "none" not in texts
    marks = [(float(x), float(y)) for x, y in re.findall(r'cx="([^"]+)" cy="([^"]+)"', svg)]
    (x1, y1), (x2, y2), (x3, _), *_ = marks
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2) and x1 < x2 and y1 < y2, "equal factors are equal distances"
    assert len(marks) == 5 and all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in marks)
    assert picture(Chart("One point", [Series("tiny", [(5, 1.0)])]), "minutes").count("<circle") == 1
