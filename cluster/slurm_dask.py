"""The whole paper tier on SLURM through dask-jobqueue. An example: it has not been run on a SLURM cluster.

    .venv/bin/python cluster/slurm_dask.py

Run it where it may run for days (a job of its own, or a terminal that stays), in the root of the repository, on a
file system that all nodes see. It asks SLURM for workers, shares the shards and the training runs out over
them, and can be stopped and started again at any time.
"""

import subprocess

from dask_jobqueue import SLURMCluster

WORKERS = 28
THREADS = 2


def make_cluster(**more):
    """A scheduler in this process; its workers are SLURM jobs, one worker a job."""
    return SLURMCluster(
        queue="normal",  # your partition
        # account="...",
        job_cpu=THREADS,
        cores=1,  # tasks at a time; a task uses THREADS threads
        processes=1,
        memory="6GB",  # a structure needs 2 GiB; training on the paper's counts, see the README here
        walltime="12:00:00",
        # A worker ends before its job does, not all of them at once; the task in its hands is done again elsewhere.
        worker_extra_args=["--lifetime", "11h", "--lifetime-stagger", "30m"],
        job_script_prologue=[f"export NUMBA_NUM_THREADS={THREADS} OMP_NUM_THREADS={THREADS}"],
        # job_extra_directives=["--gres=gpu:1"],  # with --device gpu below: one worker, one GPU
        # interface="ib0",  # the network that the nodes share
        **more,
    )


def main():
    with make_cluster() as cluster:
        cluster.adapt(minimum=1, maximum=WORKERS)
        subprocess.run(["./run_all.sh", "paper", "--scheduler", cluster.scheduler_address], check=True)


if __name__ == "__main__":
    main()
