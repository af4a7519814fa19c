"""Grids to cells: names, products, what is refused."""

import re

import pytest

from avfuse.fusion.models.table import HEADS
from avfuse.fusion.runs.grids import GRIDS, Cell, cells_of, load_grid
from avfuse.fusion.settings import preset, spelled, with_settings


def names(*of, **more):
    return [cell.name for cell in cells_of(*of, **more)]


def test_presets_times_features():
    sets = [("face", "voice"), ("face",)]
    assert cells_of({}, ["crossattn", "concat"], sets) == [
        Cell("crossattn_face+voice", "crossattn", ("face", "voice")),
        Cell("crossattn_face", "crossattn", ("face",)),
        Cell("concat_face+voice", "concat", ("face", "voice")),
        Cell("concat_face", "concat", ("face",)),
    ]
    assert cells_of({}, ["concat"], []) == [Cell("concat", "concat")]


def test_s1_kernels():
    cells = cells_of(load_grid("s1-kernels"), [], [])
    assert [(cell.name, dict(cell.settings)) for cell in cells] == [
        ("crossattn_kernels=3", {"kernels": "3"}),
        ("crossattn_kernels=5", {"kernels": "5"}),
        ("crossattn_kernels=7", {"kernels": "7"}),
        ("crossattn_kernels=3-5-7", {"kernels": "3,5,7"}),
    ]


def test_modalities_alone_in_pairs_and_together():
    grid = load_grid("modalities")
    found = [cell.modalities for cell in cells_of(grid, ["concat"], [("a", "b", "c")])]
    assert found == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]
    assert [cell.modalities for cell in cells_of(grid, ["concat"], [("a", "b")])] == [("a",), ("b",), ("a", "b")]
    assert [cell.modalities for cell in cells_of(grid, ["concat"], [("a",)])] == [("a",)]
    assert len(cells_of(grid, ["concat"], [])) == 7  # of the preset's own three


def test_s2_table_2():
    cells = cells_of(load_grid("s2-table2"), [], [])
    assert [cell.name for cell in cells] == [
        "none-of-them",
        "la_se",
        "tcn",
        "transformer",
        "la_se+tcn",
        "la_se+transformer",
        "tcn+transformer",
        "la_se+tcn+transformer",
    ]
    assert dict(cells[4].settings) == {"la_se": "true", "tcn": "true", "transformer": "false"}


def test_s4_table_1():
    cells = cells_of(load_grid("s4-table1"), [], [])
    assert len(cells) == 9
    assert cells[4] == Cell("attention_clip_large+wavlm_large", "attention", ("clip_large", "wavlm_large"))
    others = cells_of(load_grid("s4-table1"), [], [("face", "voice")])
    assert [cell.name for cell in others] == ["attention_face+voice", "mfn_face+voice", "mctn_face+voice"]


@pytest.mark.parametrize("name", GRIDS)
def test_heads_have_the_settings_of_a_grid(name):
    for cell in cells_of(load_grid(name), ["concat"] if name == "modalities" else [], []):
        changed = with_settings(preset(cell.preset), dict(cell.settings))
        assert {key: spelled(getattr(changed.model, key)) for key, _ in cell.settings} == dict(cell.settings)


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_whose_heads_are_missing_says_so(name, monkeypatch):
    for head in list(HEADS):
        monkeypatch.delitem(HEADS, head)
    monkeypatch.setitem(HEADS, "other", "")
    with pytest.raises(ValueError, match=r"this avfuse has no preset '.*'; there are other"):
        cells_of(load_grid(name), ["concat"] if name == "modalities" else [], [("face",)], f"--grid {name}")


def test_a_file(tmp_path):
    (tmp_path / "g.yaml").write_text(
        "cells:\n"
        "  - {name: small one, preset: crossattn, set: {hidden: 8}}\n"
        "  - {preset: concat, modalities: [face, voice]}\n"
        "product:\n"
        "  task: [valence, arousal]\n"
        "  set: {lr: [1.0e-3, 0.01]}\n"
    )
    cells = cells_of(load_grid(str(tmp_path / "g.yaml")), [], [])
    assert [cell.name for cell in cells] == [
        "small-one_task=valence_lr=0.001",
        "small-one_task=valence_lr=0.01",
        "small-one_task=arousal_lr=0.001",
        "small-one_task=arousal_lr=0.01",
        "concat_face+voice_task=valence_lr=0.001",
        "concat_face+voice_task=valence_lr=0.01",
        "concat_face+voice_task=arousal_lr=0.001",
        "concat_face+voice_task=arousal_lr=0.01",
    ]
    assert cells[0] == Cell(
        "small-one_task=valence_lr=0.001", "crossattn", None, "valence", (("hidden", "8"), ("lr", "0.001"))
    )


def test_names_are_folders_everywhere():
    found = names({"cells": [{"name": "a/../b: ü?"}, {"name": "x" * 300}, {"name": "s4-window"}]}, ["concat"], [])
    assert len(set(found)) == 3
    assert all(re.fullmatch(r"[\w.+=-]{1,110}", name, re.ASCII) and name[0] != "." for name in found)
    assert "s4-window" not in found
    assert names({"cells": [{"name": "a/b"}]}, ["concat"], []) != names({"cells": [{"name": "a-b"}]}, ["concat"], [])


@pytest.mark.parametrize(
    ("grid", "presets", "message"),
    [
        ({}, [], "--grid names no preset: give --presets"),
        ({"cells": [{"preset": "concat"}]}, ["concat"], "--grid names its presets: omit --presets"),
        ({}, ["concatt"], "no preset 'concatt' (did you mean concat?)"),
        ({"cell": []}, ["concat"], "--grid: unknown key cell (did you mean cells?)"),
        ({"cells": [{"presets": "concat"}]}, [], "--grid, cells: unknown key presets (did you mean preset?)"),
        ({"cells": ["concat"]}, [], "--grid, cells must hold `key: value` lines, got 'concat'"),
        ({"product": {"name": ["a"]}}, ["concat"], "--grid, product: unknown key name"),
        ({"product": ["concat"]}, [], "--grid, product must hold `key: value` lines"),
        ({"product": {"set": ["lr"]}}, ["concat"], "--grid, set must hold `key: value` lines"),
        (
            {"cells": [{"preset": "concat", "set": {"lr": 1}}], "product": {"set": {"lr": [2]}}},
            [],
            "lr is in a cell and in the product",
        ),
        (
            {"cells": [{"name": "a", "set": {"lr": 1}}, {"name": "a", "set": {"lr": 2}}]},
            ["concat"],
            "two cells are called a; rename one of them",
        ),
    ],
)
def test_what_is_no_grid(grid, presets, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cells_of(grid, presets, [])


def test_the_same_cell_twice_is_one():
    assert names({"cells": [{"set": {"lr": 1}}, {"set": {"lr": 1}}]}, ["concat"], []) == ["concat_lr=1"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s1-kernel", None, "there is no grid 's1-kernel' (did you mean s1-kernels?)"),
        ("g.yaml", "a: [", "cannot be read as YAML"),
        ("g.yaml", "- a", "must hold `cells:`, `product:` or both"),
    ],
)
def test_what_is_no_file_of_a_grid(name, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_grid(name)
    with pytest.raises(FileNotFoundError):
        load_grid("missing.yaml")
