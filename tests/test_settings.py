"""The paper's settings: equal where they must be, and shown where they are not."""

import pytest

from grfsaxs_lib import settings, tiers
from grfsaxs_lib.paper import numbers
from grfsaxs_lib.trees import training


@pytest.mark.parametrize("tier", tiers.TIERS)
def test_settings_that_must_be_equal_are(tier):
    found = settings.settings(tier)
    assert [one.name for one in found if one.everywhere and not one.is_same] == []
    assert len({one.name for one in found}) == len(found)


def test_the_paper_tier_has_all_settings_of_the_paper():
    assert all(one.is_same for one in settings.settings("paper"))


def test_smaller_tiers_say_what_differs():
    table = settings.settings_table("quick").set_index("setting")
    assert list(table.columns) == ["where", "paper", "here", "comparison"]
    assert table.loc["simulated train curves"].tolist() == ["§2.3", "524288", "0", "differs at this tier"]
    assert table.loc["min_child_weight used", "comparison"] == "same"


def test_a_setting_that_differs_is_seen():
    assert not settings.Setting("§2.2", "voxels", 512, 256).is_same
    assert settings.Setting("§2.3", "q", 3.0, 3.004, digits=2).is_same
    assert not settings.Setting("§2.3", "q", 3.0, 3.006, digits=2).is_same
    assert not settings.Setting("§2.3", "range", (0.8, 8.0), (0.8, 9.0)).is_same


def test_every_hyperparameter_is_compared_and_lies_in_table_1():
    chosen = training.PAPER_HYPERPARAMETERS | {"n_estimators": training.PAPER_SCHEDULE["n_estimators"]}
    assert chosen.keys() == numbers.TABLE_1.keys() == training.SEARCH_SPACE.keys()
    names = {one.name for one in settings.settings("quick")}
    for name, value in chosen.items():
        assert {f"{name}: range of the search", f"{name}: choice of the paper", f"{name} used"} <= names
        allowed = numbers.TABLE_1[name]
        assert value in allowed if len(allowed) == 3 else allowed[0] <= value <= allowed[1]
