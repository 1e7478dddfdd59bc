"""The numbers that Röding et al. (2022) print: sizes, case study, Tables 1 and 2."""

import pandas as pd

PAPER_DOI = "10.3389/fmats.2022.956839"
DATA_DOI = "10.5281/zenodo.5948941"
CITATION = (
    "Röding M, Tomaszewski P, Yu S, Borg M and Rönnols J (2022), Machine learning-accelerated "
    "small-angle X-ray scattering analysis of disordered two- and three-phase materials, "
    f"Front. Mater. 9:956839, doi:{PAPER_DOI}"
)
DATA_CITATION = f"Data and code of the paper, Zenodo, doi:{DATA_DOI}"

N_SAMPLES = {"train": 2**19, "validation": 2**18, "test": 2**17}
"""Curves of each case, section 2.3."""

FIGURE_1 = {"scaling_parameter": 4.0, "porosity": 0.60, "layer_fraction": 0.50}
"""Parameters of the structure in figures 1 and 2."""

CASE_STUDY = {"scaling_parameter": 4.0, "porosity": 0.70, "layer_fraction": 0.20}
"""Parameters of the case study, section 2.5; it has `CASE_STUDY_CURVES` curves."""

CASE_STUDY_CURVES = 500
CASE_STUDY_MEAN = {"scaling_parameter": 4.004, "porosity": 0.701, "layer_fraction": 0.201}
CASE_STUDY_SD = {"scaling_parameter": 0.025, "porosity": 0.009, "layer_fraction": 0.005}
FIGURE_7_PREDICTION = {"scaling_parameter": 3.982, "porosity": 0.706, "layer_fraction": 0.195}

TABLE_1 = {
    "learning_rate": (0.001, 0.05),
    "max_depth": (10, 20),
    "min_child_weight": (1, 10),
    "subsample": (0.1, 0.5),
    "colsample_bytree": (0.1, 0.3),
    "reg_lambda": (0.1, 10),
    "max_bin": (256, 512, 1024),
    "n_estimators": (1, 50_000),
}
"""Ranges of the hyperparameters, Table 1; `max_bin` is one of three values."""

# MSE and MAPE [%] on the training, validation and test sets.
_TABLE_2 = """
two_phase_low    scaling_parameter  7.452e-4 4.172e-3 4.215e-3  0.389 0.701 0.707
two_phase_low    porosity           2.624e-6 3.729e-4 3.766e-4  0.485 4.180 4.190
two_phase_high   scaling_parameter  3.750e-4 4.185e-3 4.195e-3  0.306 0.702 0.702
two_phase_high   porosity           2.434e-6 3.735e-4 3.736e-4  0.168 2.023 2.026
three_phase_low  scaling_parameter  6.248e-5 4.374e-3 4.324e-3  0.158 0.731 0.727
three_phase_low  porosity           3.163e-7 1.175e-4 1.171e-4  0.171 2.811 2.793
three_phase_low  layer_fraction     2.106e-7 1.328e-5 1.317e-5  0.189 1.292 1.280
three_phase_high scaling_parameter  5.249e-5 3.160e-3 3.199e-3  0.144 0.614 0.617
three_phase_high porosity           4.084e-7 2.601e-4 2.606e-4  0.070 1.582 1.583
three_phase_high layer_fraction     2.674e-7 8.150e-5 8.144e-5  0.211 2.882 2.879
"""

TABLE_2 = pd.DataFrame(
    [
        {"case": case, "output": output, "error": error, "split": split, "value": float(value)}
        for case, output, *values in map(str.split, _TABLE_2.strip().splitlines())
        for (error, split), value in zip(
            [(error, split) for error in ("mse", "mape") for split in N_SAMPLES], values, strict=True
        )
    ]
)
"""Table 2 as tidy rows: case, output, error (``mse``, ``mape`` [%]), split, value."""

MODEL_RESULTS = {
    "n_estimators": (6060, 48841),  # of the final models, smallest and largest
    "training": 3 * 3600.0,  # s a run, A100 GPU
    "simulation": 1.0,  # s a curve, A40 GPU
    "prediction": 2.5e-3,  # s a curve, three outputs
}
"""Sizes of the final models and wall times [s], sections 2.3 to 2.5."""
