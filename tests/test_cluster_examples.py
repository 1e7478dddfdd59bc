"""The examples for SLURM, as far as they go without SLURM."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLUSTER = Path(__file__).resolve().parent.parent / "cluster"


def test_the_job_array_shares_the_shards_out(tmp_path):
    """With a stand-in for run_all.sh that writes down how it was called."""
    (tmp_path / "run_all.sh").write_text('#!/bin/sh\necho "$NUMBA_NUM_THREADS: $*"\n')
    (tmp_path / "run_all.sh").chmod(0o755)
    slurm = {"SLURM_CPUS_PER_TASK": "2", "SLURM_ARRAY_TASK_ID": "3"}
    job = subprocess.run(
        ["bash", CLUSTER / "slurm_array.sh"], cwd=tmp_path, env=os.environ | slurm, capture_output=True, text=True
    )
    assert (job.returncode, job.stdout) == (0, "2: generate paper --shards 3/28\n"), job.stderr


def test_the_jobs_of_dask(monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.syspath_prepend(str(CLUSTER))
    import slurm_dask

    with slurm_dask.make_cluster(scheduler_options={"dashboard_address": "127.0.0.1:0"}) as cluster:
        script = cluster.job_script()
    assert "#SBATCH --cpus-per-task=2" in script and "#SBATCH -t 12:00:00" in script
    assert "export NUMBA_NUM_THREADS=2" in script and "--lifetime 11h" in script
    assert "--nthreads 1" in script and sys.executable in script
