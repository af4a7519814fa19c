"""A tenth of the sweep over faults of clocks, half of it slow; `make soak` makes the whole."""

import pytest
from sweep import CONTAINERS, check, recipes

TENTH = recipes(seed=1, clips=20)
HALF = [*TENTH[:10], next(recipe for recipe in TENTH[10:] if recipe.sound_outlier)]


def test_half_of_the_tenth_has_every_fault_and_container():
    assert {recipe.container for recipe in HALF} == set(CONTAINERS)
    for fault in ("jitter_s", "drift", "late_s", "gap_s", "outliers", "sound_outlier", "joined"):
        assert any(getattr(recipe, fault) for recipe in HALF), fault


@pytest.mark.parametrize(
    "recipe",
    [*HALF, *(pytest.param(recipe, marks=pytest.mark.slow) for recipe in TENTH if recipe not in HALF)],
    ids=lambda recipe: f"{recipe.number}-{recipe.container}",
)
def test_click_and_flash_stay_together(recipe, tmp_path):
    assert check(recipe, tmp_path).faults == []
