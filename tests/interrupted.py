"""Interrupt work at random moments, and print what was raised: the name of each exception and how often it came.

usage: python interrupted.py simulate|fit NUMBER
"""

import signal
import sys
import time
import warnings
from collections import Counter

import numpy as np

import grfsaxs_lib as gx
from grfsaxs_lib.datasets import reference
from grfsaxs_lib.emulator import emulator
from grfsaxs_lib.inference import likelihood

LOST = 5.0  # s after which an interrupt will not be raised any more


def simulate():
    gx.simulate(gx.Grid(32, 1.0), scaling_parameter=[2.0, 3.0], porosity=0.6, layer_fraction=0.3, seed=1)


def prepare_fit():
    curves = reference.load("two_phase_low", "train").isel(sample=slice(64))
    case = gx.CASES["two_phase_low"]
    learned = emulator.fit(case, curves["intensity"].values, {name: curves[name].values for name in case.outputs})
    prepared, intensity = likelihood.prepare(learned), curves["intensity"].values[:8]

    def fit():
        prepared.fit(intensity)
        prepared.posterior(*prepared.average(intensity)[:2], np.random.default_rng(0), 32)

    return fit


def main(kind, number):
    warnings.simplefilter("ignore")
    work = simulate if kind == "simulate" else prepare_fit()
    work()  # compiles
    start = time.perf_counter()
    work()
    longest = 3 * (time.perf_counter() - start)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    rng, raised = np.random.default_rng(0), Counter()
    for _ in range(number):
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, longest))
            start = time.perf_counter()
            while time.perf_counter() < start + longest + LOST:
                work()
            raised["lost"] += 1
        except BaseException as error:
            raised[type(error).__name__] += 1
    print(*(f"{name} {count}" for name, count in raised.items()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
