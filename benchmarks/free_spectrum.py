"""How well a free spectral density is found: simulated measurements of spectra outside every family.

Run as ``python benchmarks/free_spectrum.py [--count 40] [--seed 1] [--csv FILE]``. Each spectrum is drawn at random: a
power-law cutoff, to which a shoulder, a bump or both are added. A measurement has 150 points over two decades of q, 1 %
noise, 3 % resolution and a background. Printed are the shares of cases inside each bar, and the coverage of intervals.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd

import grfsaxs_lib as gx
from grfsaxs_lib.inference import level_cut
from grfsaxs_lib.inference.smearing import smearing

_LIMITS = 0.03, 3.0  # of q [nm^-1]
_BARS = {"intensity": 0.01, "surface": 0.03, "correlation": 0.03}


def random_spectrum(rng):
    """A spectral density, a callable of (k [nm^-1], a), with most of its variance well inside the limits of q."""
    knee, exponent = 10 ** rng.uniform(-0.9, -0.3), rng.uniform(6.5, 16)
    shoulder = rng.uniform() < 0.5, knee * rng.uniform(2.5, 5), 10 ** rng.uniform(-3.5, -1.5)
    bump = rng.uniform() < 0.5, knee * rng.uniform(0.8, 5), rng.uniform(0.15, 0.4), 10 ** rng.uniform(-2.5, 0.5)

    def density(k, _):
        value = (1 + (k / knee) ** 4) ** (-exponent / 4)
        if shoulder[0]:
            value = value + shoulder[2] * (1 + (k / shoulder[1]) ** 4) ** (-exponent / 4)
        if bump[0]:
            value = value + bump[3] * np.exp(-(np.log(k / bump[1]) ** 2) / (2 * bump[2] ** 2))
        return value

    return density


def judge(density, porosity, rng, seed):
    """Errors and coverage of one simulated measurement, a dict."""
    q = np.geomspace(*_LIMITS, 150)
    points, weights = smearing(q, 0.03 * q)
    truth = {"scaling_parameter": 1.0, "porosity": porosity, "spectral_density": density}
    clean = np.sum(weights * gx.level_cut_intensity(points, **truth), axis=1)
    measured = clean + rng.uniform(0, 1) * np.interp(1.5, q, clean)
    sigma = 0.01 * measured
    curve = gx.Curve(q, measured + sigma * rng.standard_normal(q.size), sigma, 0.03 * q)
    began = time.process_time()
    found = gx.analyse(curve, spectral_density="free", porosity=porosity, seed=seed)
    seconds = time.process_time() - began

    loss = level_cut.correlation_loss(density)
    spectrum, correlation = found.spectrum, found.correlation
    k, r = spectrum["k"].values, correlation["r"].values
    gamma = density(k, 1.0) / np.sum(level_cut.K**3 * density(level_cut.K, 1.0) * level_cut.LOG_STEP)
    covered = (spectrum["lower_95"].values <= gamma) & (gamma <= spectrum["upper_95"].values)
    inside, seen = (k >= q[0]) & (k <= q[-1]), spectrum["from_data"].values
    near = correlation["from_data"].values
    surface, draws = level_cut.specific_surface(loss, porosity), found.samples["specific_surface"]
    return {
        "porosity": porosity,
        "reliable": found.reliable,
        "intensity": np.median(np.abs(np.log((found.fit - np.median(found.background)) / clean))),
        "surface": abs(np.median(draws) / surface - 1),
        "correlation": np.abs(correlation["g"].values - 1 + level_cut.at_distance(loss, r))[near].max(),
        "covered": covered[inside].mean(),
        "covered_seen": covered[seen].mean(),
        "surface_68": abs(np.mean(draws < surface) - 0.5) < 0.34,
        "surface_95": abs(np.mean(draws < surface) - 0.5) < 0.475,
        "effective": found.effective_samples,
        "smoothness": found.smoothness,
        "seconds": seconds,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore", gx.AnalysisWarning)
    rows = []
    for number in range(given.count):
        rng = np.random.default_rng([given.seed, number])
        rows.append(judge(random_spectrum(rng), rng.uniform(0.1, 0.5), rng, number))
        print(number, {name: f"{float(value):.3g}" for name, value in rows[-1].items()}, flush=True)
    table = pd.DataFrame(rows)
    if given.csv:
        table.to_csv(given.csv, index=False)
    for label, part in (("all", table), ("called reliable", table[table["reliable"]])):
        print(f"{label}: {len(part)}")
        for name, bar in _BARS.items():
            errors, share = part[name], np.mean(part[name] <= bar)
            print(f"  {name}: median {errors.median():.4f}, most {errors.max():.4f}, {share:.2f} within {bar}")
        for name in ("covered", "covered_seen"):
            print(f"  95 % bands, {name}: {part[name].mean():.3f}; at least .9 in {np.mean(part[name] >= 0.9):.2f}")
        for name in ("surface_68", "surface_95"):
            share = part[name].mean()
            print(f"  {name}: {share:.3f} ± {np.sqrt(share * (1 - share) / len(part)):.3f}")
    print(f"CPU seconds: median {table['seconds'].median():.1f}, most {table['seconds'].max():.1f}")


if __name__ == "__main__":
    main()
