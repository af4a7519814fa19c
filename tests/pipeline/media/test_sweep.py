"""A tenth of the sweep over faults of clocks, most of it slow; `make soak` makes the whole."""

import pytest
from sweep import CONTAINERS, check, recipes

TENTH = recipes(seed=1, clips=20)
QUICK = [recipe for recipe in TENTH if recipe.number in (4, 5, 7, 8, 11)]


def test_the_quick_ones_have_every_fault_and_container():
    assert {recipe.container for recipe in QUICK} == set(CONTAINERS)
    for fault in ("jitter_s", "drift", "late_s", "gap_s", "outliers", "sound_outlier", "joined"):
        assert any(getattr(recipe, fault) for recipe in QUICK), fault


@pytest.mark.parametrize(
    "recipe",
    [*QUICK, *(pytest.param(recipe, marks=pytest.mark.slow) for recipe in TENTH if recipe not in QUICK)],
    ids=lambda recipe: f"{recipe.number}-{recipe.container}",
)
def test_click_and_flash_stay_together(recipe, tmp_path):
    assert check(recipe, tmp_path).faults == []
