import json
import sys
import time
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avfuse import __version__
from avfuse.fusion.results.plots import (
    _COLOURS,
    _TRUTH,
    DPI,
    _envelope,
    _shades,
    learning_curves,
    overview,
    prediction_plot,
    probability_plot,
)

BOTH = ("valence", "arousal")


@pytest.fixture
def history():
    epochs = np.arange(1, 41)
    rise = 0.5 * (1 - np.exp(-epochs / 10))
    rise[20] += 0.2
    rates = np.where(epochs > 30, 1e-5, 1e-4)
    return {"epoch": epochs, "loss": 2 - rise, "ccc_valence": rise, "ccc_arousal": rise, "P": rise, "lr": rates}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    from avfuse.fusion.results import plots

    figures = []
    save = plots._save

    def save_and_keep(figure, *more):
        figures.append(figure)
        save(figure, *more)

    monkeypatch.setattr(plots, "_save", save_and_keep)
    return figures


def size(path):
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.size


def wave(rows):
    time_s = np.arange(rows) / 30
    return time_s, np.stack([np.sin(time_s), np.cos(time_s)], axis=1)


def test_learning_curves(tmp_path, history, drawn):
    path = tmp_path / "plots" / "curves.png"
    learning_curves(history, path)
    assert size(path)[0] == 3.5 * DPI
    loss, scores, rate = drawn[0].axes
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["loss", "CCC", "learning rate"]
    assert [text.get_text() for text in scores.get_legend().get_texts()] == ["CCC valence", "CCC arousal", "P"]
    assert rate.get_yscale() == "log"
    assert rate.get_xlabel() == "epoch"
    assert loss.get_title() == f"best epoch 21, P {history['P'][20]:.3f}"
    assert [found.name for found in path.parent.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_few_epochs_and_missing_values(tmp_path, epochs, drawn):
    history: dict[str, Sequence[float | None]] = {
        "loss": [1.5, None, 1.0][:epochs],
        "P": [None, 0.2, 0.1][:epochs],
        "ccc_arousal": [None] * epochs,
    }
    learning_curves({**history, "lr": [0.0, 0.0, 0.0][:epochs], "seconds": [3.0] * epochs}, tmp_path / "a.png")
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["loss", *["CCC"] * (epochs > 1), "learning rate"]
    assert drawn[0].axes[0].get_title() == ("best epoch 2, P 0.200" if epochs > 1 else "")


@pytest.mark.parametrize("history", [{}, {"epoch": [], "loss": []}, {"epoch": [1]}, {"loss": [None]}])
def test_nothing_learned(tmp_path, history):
    with pytest.raises(ValueError, match=r"a\.png: the history holds no epoch to draw"):
        learning_curves(history, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_prediction_plot(tmp_path, drawn):
    time_s, truth = wave(600)
    valid = np.ones(600, np.bool_)
    valid[100:200] = False
    truth[~valid] = -5
    prediction_plot(tmp_path / "b" / "a.png", "b/a", BOTH, time_s, truth / 2, truth, valid, {"valence": 0.36721})
    assert size(tmp_path / "b" / "a.png") == (1432, 700)
    first, second = drawn[0].axes
    assert (first.get_title(), second.get_title()) == ("valence: CCC 0.367", "arousal")
    assert second.get_xlabel() == "time / s"
    assert first.get_ylim() == (-1.05, 1.05)
    (seen,) = (line for line in first.lines if line.get_label() == "truth")
    assert np.array_equal(np.isnan(seen.get_ydata()), ~valid)
    (grey,) = first.collections
    box = grey.get_paths()[0].get_extents()
    assert (box.x0, box.x1) == (time_s[100], time_s[200])


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_shortest_trials(tmp_path, rows):
    time_s, truth = wave(rows)
    prediction_plot(tmp_path / "a.png", "a", BOTH, time_s, truth, truth, np.zeros(rows, np.bool_))
    size(tmp_path / "a.png")


def test_one_task_without_labels(tmp_path, drawn):
    time_s, truth = wave(30)
    prediction_plot(tmp_path / "a.png", "a", ("arousal",), time_s, truth[:, 1:])
    assert [axes.get_title() for axes in drawn[0].axes] == ["arousal"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["prediction"]


@pytest.mark.parametrize("trial", ["$a_b$ 50%", "漢字/ü", "two\nlines", "x" * 250, "\udcff"])
def test_any_name_can_be_drawn(tmp_path, trial, drawn):
    time_s, truth = wave(30)
    prediction_plot(tmp_path / "a.png", trial, BOTH, time_s, truth)
    shown = drawn[0].get_suptitle()
    assert len(shown) <= 80
    assert "\n" not in shown


def test_shapes_must_agree(tmp_path):
    time_s, truth = wave(30)
    for bad in ((time_s[:-1], truth, truth), (time_s, truth[:-1], truth[:-1]), (time_s, truth[:, :1], truth[:, :1])):
        with pytest.raises(ValueError, match=r"^a: \d+ times, \(\d+, \d\) true and \(\d+, \d\) predicted values$"):
            prediction_plot(tmp_path / "a.png", "a", BOTH, *bad)
    with pytest.raises(ValueError, match="predicted values"):
        prediction_plot(tmp_path / "a.png", "a", BOTH, time_s, truth, truth[:, :1])
    with pytest.raises(ValueError, match="predicted values"):
        prediction_plot(tmp_path / "a.png", "a", BOTH, time_s, truth, truth, np.ones(29, np.bool_))


@pytest.mark.slow
def test_a_long_trial_is_quick(tmp_path):
    time_s, truth = wave(47_000)
    valid = np.arange(47_000) % 3 > 0
    start_s = time.perf_counter()
    prediction_plot(tmp_path / "a.png", "a", BOTH, time_s, truth, truth, valid)
    assert time.perf_counter() - start_s < 10


@given(st.integers(1, 20_000), st.integers(0, 2**32 - 1))
def test_the_envelope_keeps_peaks_and_gaps(rows, seed):
    values = np.random.default_rng(seed).normal(size=rows)
    values[rows // 3 : rows // 2] = np.nan
    times, shown = _envelope(np.arange(rows, dtype=np.float64), values)
    assert len(times) == len(shown) <= 4002
    assert (np.diff(times) >= 0).all()
    np.testing.assert_array_equal(values[times.astype(int)], shown)
    if np.isfinite(values).any():
        assert (np.nanmin(shown), np.nanmax(shown)) == (np.nanmin(values), np.nanmax(values))
    if rows // 2 - rows // 3 > 20:
        assert np.isnan(shown).any()


def test_probabilities_without_truth_have_one_panel_and_masked_rows_a_grey_bar(tmp_path, drawn):
    time_s, rows = wave(601)
    share, valid = (rows + 1) / 2, np.ones(601, np.bool_)
    valid[100:200] = False
    probability_plot(tmp_path / "a.png", "a", BOTH, time_s, share, None, valid)
    panel, _ = drawn[0].axes  # and the bar of colours
    assert panel.get_title() == "prediction"
    (grey,) = panel.collections
    box = grey.get_paths()[0].get_extents()
    assert (box.x0, box.x1) == pytest.approx((100 / 601 * 20, 200 / 601 * 20))
    assert box.y1 < -0.5 - 0.1  # upwards of the first line of the picture
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["masked"]
    probability_plot(tmp_path / "b.png", "b", BOTH, time_s, share, None, np.ones(601, np.bool_))
    assert not drawn[1].legends
    probability_plot(tmp_path / "c.png", "c", BOTH, time_s, share, share, valid)
    assert [axes.get_title() for axes in drawn[2].axes[:2]] == ["truth", "prediction"]
    assert not drawn[2].legends


@pytest.mark.parametrize("rows", [1, 2])
def test_shortest_probabilities(tmp_path, rows):
    time_s, share = wave(rows)
    probability_plot(tmp_path / "a.png", "a", BOTH, time_s, share, None, np.zeros(rows, np.bool_))
    size(tmp_path / "a.png")


def test_overview(tmp_path, drawn):
    truth = np.random.default_rng(0).uniform(-1, 1, (5000, 2))
    overview(tmp_path / "all.png", BOTH, truth, truth * 1.2, {"valence": 0.5, "arousal": 0.6})
    assert size(tmp_path / "all.png") == (1432, 600)
    first, second = drawn[0].axes[0], drawn[0].axes[2]
    assert (first.get_xlabel(), second.get_ylabel()) == ("true valence", "predicted arousal")
    assert first.collections[0].get_array().sum() == 5000


def test_overview_of_nothing(tmp_path):
    overview(tmp_path / "all.png", ("valence",), np.zeros((0, 1)), np.zeros((0, 1)), {})
    size(tmp_path / "all.png")


def test_no_global_state(tmp_path):
    time_s, truth = wave(30)
    had = "matplotlib.pyplot" in sys.modules
    prediction_plot(tmp_path / "a.png", "a", BOTH, time_s, truth)
    assert ("matplotlib.pyplot" in sys.modules) == had


def test_a_picture_says_what_it_is_of(tmp_path):
    about = {"command": "avfuse évaluer 日本", "runs": ["r"], "UNTRAINED": ["voice"]}
    truth = np.zeros((3, 1))
    overview(tmp_path / "a.png", ("valence",), truth, truth, {}, about)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info["Software"] == f"avfuse {__version__}"
        assert json.loads(picture.info["Description"]) == about


def draw_all(folder, figures):
    time_s, truth = wave(600)
    valid = np.arange(600) > 99
    about = {"command": "avfuse évaluer", "time": "2026-11-26T17:00:00+00:00"}
    folder.mkdir()
    learning_curves({"loss": [2.0, 1.0], "P": [0.1, 0.2]}, folder / f"curves.{figures}", about)
    prediction_plot(folder / f"trial.{figures}", "a/ü", BOTH, time_s, truth, truth, valid, None, about)
    overview(folder / f"all.{figures}", BOTH, truth, truth, {}, about)
    share = (truth + 1) / 2
    probability_plot(folder / f"share.{figures}", "a", BOTH, time_s, share, share, valid, about)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory):
    """Figures in a format, drawn when they are first asked for."""
    return cache(lambda figures: draw_all(tmp_path_factory.mktemp("drawn") / figures, figures))


class TestPrint:
    """Figures for a paper: vector formats that are the same file twice, and colours that survive a grey printer."""

    @pytest.mark.parametrize(
        "figures", ["pdf", *(pytest.param(each, marks=pytest.mark.slow) for each in ("png", "svg"))]
    )
    def test_twice_the_same_file_without_a_date(self, drawn_once, tmp_path, figures):
        first, again = drawn_once(figures), draw_all(tmp_path / "again", figures)
        assert len(first) == 4
        assert first == again
        for content in first.values():
            assert b"2026-11-26" not in content
            assert b"CreationDate" not in content
            assert b"dc:date" not in content

    def test_pdf_has_its_font_inside(self, drawn_once):
        for content in drawn_once("pdf").values():
            assert content.startswith(b"%PDF-")
            assert b"/FontFile2" in content
            assert b"/Type3" not in content

    def test_svg_needs_no_font(self, drawn_once):
        for content in drawn_once("svg").values():
            assert b"<svg" in content
            assert b"<text" not in content

    def test_colours_differ_in_grey_and_to_colour_blind_readers(self):
        """Machado, Oliveira and Fernandes 2009, severity 1, in linear light; CIE L*a*b* of D65."""
        blind = {
            "protan": [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
            "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
        }
        linear = np.array([to_linear(colour) for colour in (_TRUTH, *_COLOURS)])
        pairs = np.triu_indices(len(linear), 1)
        lightness = lab(linear)[:, 0]
        assert (np.abs(np.subtract.outer(lightness, lightness))[pairs] > 12).all()
        assert lightness.max() < 70  # a thin line on white
        for kind, matrix in blind.items():
            seen = lab(np.clip(linear @ np.array(matrix).T, 0, 1))
            apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[pairs]
            assert apart.min() > 20, kind

    def test_a_single_frame_is_seen_on_white(self):
        lightness = lab(np.array([to_linear(colour) for colour in _shades()(np.linspace(0, 1, 50))]))[:, 0]
        assert lightness[0] < 77
        assert (np.diff(lightness) <= 0).all()


def to_linear(colour):
    from matplotlib.colors import to_rgb

    light = np.array(to_rgb(colour))
    return np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)


def lab(linear):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(linear @ to_xyz.T / [0.9505, 1, 1.089], 0.008856)).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
