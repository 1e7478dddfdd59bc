"""The tiers: how many curves, trees and structures each size of run takes.

A tier is one table of notebook parameters and nothing else. A notebook gets those that its parameters cell names.
"""

# Changes of the trees' settings that notebook 11 compares.
_TREE_SETTINGS = [
    {"max_depth": 4},
    {"max_depth": 12},
    {"learning_rate": 0.025},
    {"learning_rate": 0.1},
    {"subsample": 0.3, "colsample_bytree": 0.3},
]

# fmt: off
TIERS = {
    "quick": dict(
        grid_size=64, voxel_size=1.0, smoothing_sigma=1.0,  # voxels an edge, nm, voxels
        n_train=0, n_validation=0, n_test=0,  # simulated structures of a case: none, curves are emulated
        n_training_curves=4000,  # curves of a case, 07
    ),
    "laptop": dict(
        grid_size=128, voxel_size=1.0, smoothing_sigma=1.0,
        figure_grid_size=512, figure_voxel_size=0.5, figure_smoothing_sigma=2.0,  # 02, 05, 08
        survey_grid_size=192, n_survey=24,  # 15
        n_live=6,  # 04
        n_train=0, n_validation=0, n_test=0,
        n_training_curves=800_000,
        trained_cases=["two_phase_low", "three_phase_low", "three_phase_high"],  # 07
        n_lesson=20_000, n_draws=8, search_n_estimators=600, search_patience=50,  # 07
        n_estimators=600, patience=40, repeats=1,  # 07
        learning_case="three_phase_high", emulated_counts=[640, 2560, 10_000, 40_000, 160_000],  # 07
        real_counts=[640, 2560],  # 07
        judged_on="holdout", n_judged=512, n_seen=20_000, n_resample=2000,  # 08
        n_replicates=500, reconstruction_size=512,  # 09
        rival_size=256, prior_size=512, loop_size=128, n_prior=12, n_rounds=5,  # 14
        n_sigma=400, n_wide=1500, side_n_estimators=1500, side_patience=100,  # 09
        network_width=128, network_epochs=200,  # 09
        emulated_cases=["two_phase_low", "three_phase_low", "three_phase_high"], n_structures=8192,  # 11
        n_emulated=40_000, emulated_n_estimators=3000, emulated_patience=40,  # 11
        tree_settings=_TREE_SETTINGS, tree_counts=[10_000, 20_000],  # 11
        n_curves=1024, n_replicates_kept=500, learning_n_estimators=2000,  # 12
        learning_cases=["two_phase_low", "three_phase_low"], learning_sizes=[96, 384, 8192],  # 12
    ),
    "paper": dict(
        grid_size=512, voxel_size=0.5, smoothing_sigma=2.0,
        figure_grid_size=512, figure_voxel_size=0.5, figure_smoothing_sigma=2.0,
        survey_grid_size=512, n_survey=36,
        n_live=6, n_train=2**19, n_validation=2**18, n_test=2**17,  # 04
        n_training_curves=2**19,
        trained_cases=["two_phase_low", "two_phase_high", "three_phase_low", "three_phase_high"], pooling=1,
        n_lesson=2**19, n_draws=20, search_n_estimators=50_000, search_patience=1000,
        n_estimators=50_000, patience=1000, repeats=10,
        learning_case="three_phase_high", emulated_counts=[2560, 10_000, 40_000, 160_000], real_counts=[640, 2560],
        judged_on="test", n_judged=2**17, n_seen=2**19, n_resample=2000,
        n_replicates=500, reconstruction_size=512,
        rival_size=256, prior_size=512, loop_size=128, n_prior=48, n_rounds=5,
        n_sigma=2**14, n_wide=2**16, other_sigma=4.0, side_n_estimators=50_000, side_patience=1000,
        network_width=512, network_epochs=200,
        emulated_cases=["two_phase_low", "three_phase_low", "three_phase_high"], n_structures=8192,
        n_emulated=2**19, emulated_n_estimators=50_000, emulated_patience=1000,
        tree_settings=_TREE_SETTINGS, tree_counts=[10_000, 40_000, 160_000],
        n_curves=1024, n_replicates_kept=500, learning_n_estimators=10_000,
        learning_cases=["two_phase_low", "three_phase_low"], learning_sizes=[96, 192, 384, 768, 1536, 8192],
    ),
}
# fmt: on


def check_tier(tier):
    """Return `tier` if it is the name of one, or say which there are."""
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}; got {tier!r}")
    return tier
