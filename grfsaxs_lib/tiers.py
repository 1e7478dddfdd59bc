"""The tiers: how many curves, trees and structures each size of run takes.

Each tier is one table of sizes, and a notebook takes its own from ``TIERS[tier]``. So the tier is the one word that has
to be changed for another size of run, in a notebook opened by hand too.
"""

# fmt: off
_QUICK = dict(
    grid_size=64, voxel_size=1.0, smoothing_sigma=1.0,  # 00, 01: voxels an edge, nm, voxels
    scaling_parameter=2.0, n_field=32,  # 01
    figure_grid_size=64, figure_voxel_size=1.0, figure_smoothing_sigma=1.0, n_view=6,  # 02
    box_size=64, n_averaged=32,  # 03
    n_live=1,  # 04: reference curves that are simulated again
    n_train=0, n_validation=0, n_test=0, shard_size=2**12, overwrite=False,  # 04: simulated structures of a case
    emulated_cases=["two_phase_low", "three_phase_high"], n_structures=256,  # 06
    n_training_curves=4000,  # 07: emulated curves of a case
    trained_cases=["two_phase_low", "three_phase_high"], pooling=(5, 0.06),  # 07
    n_estimators=250, patience=30, repeats=1,  # 07
    n_lesson=2000, n_draws=2, search_n_estimators=25, search_patience=20,  # 07
    learning_case="two_phase_low", emulated_counts=[250, 1000], real_counts=[64, 256],  # 07
    judged_on="test", n_judged=256, n_seen=1000, n_resample=400,  # 08
    n_replicates=60, reconstruction_size=256,  # 09
    n_side=2000, side_n_estimators=60, side_patience=20,  # 10
    network_width=64, network_epochs=60, n_sigma=3, other_sigma=4.0,  # 10
    n_judged_fits=60, n_emulated=600, emulated_n_estimators=60, emulated_patience=20,  # 11
    limited_cases=["two_phase_low"], n_curves=100, n_macroscopic=12, n_replicates_kept=60,  # 12
    learning_cases=["two_phase_low"], learning_sizes=[64, 256],  # 12
    n_measured=8,  # 13: simulated measurements
    threads=2, rival_sizes=[128], prior_size=128, loop_size=64, n_prior=4,  # 14
    survey_grid_size=80, n_survey=6,  # 15
    drawn_grid_size=128,  # 16: voxels along an edge
)

TIERS = {
    "quick": _QUICK,
    "laptop": _QUICK | dict(
        grid_size=128,
        figure_grid_size=512, figure_voxel_size=0.5, figure_smoothing_sigma=2.0, n_view=30,
        box_size=128, n_averaged=64,
        n_live=6,
        emulated_cases=["two_phase_low", "three_phase_low", "three_phase_high"], n_structures=8192,
        n_training_curves=1_500_000,
        trained_cases=["two_phase_low", "three_phase_low", "three_phase_high"], n_estimators=300, patience=60,
        n_lesson=8000, n_draws=6, search_n_estimators=150, search_patience=30,
        learning_case="three_phase_high", emulated_counts=[640, 2560, 10_000, 40_000, 160_000], real_counts=[640, 2560],
        judged_on="holdout", n_judged=512, n_seen=20_000, n_resample=2000,
        n_replicates=500, reconstruction_size=512,
        n_side=20_000, side_n_estimators=1000, side_patience=50, network_width=128, network_epochs=100, n_sigma=12,
        n_judged_fits=1024, n_emulated=20_000, emulated_n_estimators=500, emulated_patience=40,
        limited_cases=["two_phase_low", "three_phase_low", "three_phase_high"], n_curves=1024, n_macroscopic=48,
        n_replicates_kept=500, learning_cases=["two_phase_low", "three_phase_low"], learning_sizes=[96, 384, 8192],
        n_measured=800,
        rival_sizes=[128, 512], prior_size=512, loop_size=128, n_prior=12,
        survey_grid_size=192, n_survey=18,
        drawn_grid_size=512,
    ),
    "paper": _QUICK | dict(
        grid_size=512, voxel_size=0.5, smoothing_sigma=2.0,
        figure_grid_size=512, figure_voxel_size=0.5, figure_smoothing_sigma=2.0, n_view=30,
        box_size=128, n_averaged=512,
        n_live=6, n_train=2**19, n_validation=2**18, n_test=2**17,
        emulated_cases=["two_phase_low", "three_phase_low", "three_phase_high"], n_structures=8192,
        trained_cases=["two_phase_low", "two_phase_high", "three_phase_low", "three_phase_high"], pooling=(1, 0.0),
        n_estimators=50_000, patience=1000, repeats=10,
        n_lesson=2**19, n_draws=20, search_n_estimators=50_000, search_patience=1000,
        learning_case="three_phase_high", emulated_counts=[2560, 10_000, 40_000, 160_000], real_counts=[640, 2560],
        n_judged=2**17, n_seen=2**19, n_resample=2000,
        n_replicates=500, reconstruction_size=512,
        n_side=2**19, side_n_estimators=50_000, side_patience=1000,
        network_width=512, network_epochs=200, n_sigma=48,
        n_judged_fits=1024, n_emulated=100_000, emulated_n_estimators=3000, emulated_patience=100,
        limited_cases=["two_phase_low", "three_phase_low", "three_phase_high"], n_curves=1024, n_macroscopic=256,
        n_replicates_kept=500,
        learning_cases=["two_phase_low", "three_phase_low"], learning_sizes=[96, 192, 384, 768, 1536, 8192],
        n_measured=1000,
        rival_sizes=[128, 512], prior_size=512, loop_size=128, n_prior=48,
        survey_grid_size=512, n_survey=36,
        drawn_grid_size=512,
    ),
}
# fmt: on


def check_tier(tier):
    """Return `tier` if it is the name of one, or say which there are."""
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}; got {tier!r}")
    return tier
