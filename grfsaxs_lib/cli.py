"""What `run_all.sh` does inside its environment: run or verify a tier, make its data sets, tell its status.

A tier is a table of notebook parameters, and nothing else.
"""

import argparse
import json
import os
import re
import resource
import signal
import sys
import time
import warnings
from ast import literal_eval
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from . import files, results, tasks, tiers
from .datasets import keys, reference, store
from .grid import PAPER_GRID, SmallBoxWarning
from .paper import claims, verify
from .physics import backend
from .trees import runs, samples, training

_KEPT = "Finished work is kept"


# ----------------------------------------------------------------------- notebooks


def find_notebooks():
    """The numbered notebooks, in order."""
    return sorted((results.root_directory() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def notebook_parameters(notebook, tier, **more):
    """Parameters of a notebook: those that its parameters cell declares, with the values of a run.

    Parameters
    ----------
    notebook : Path
    tier : str
    **more
        Further values, such as the device.

    Returns
    -------
    dict
    """
    import papermill

    own = {name: literal_eval(entry["default"]) for name, entry in papermill.inspect_notebook(notebook).items()}
    # Notebooks that still declare sizes get those of the tier.
    given = {**tiers.TIERS[tier], "tier": tier, **more}
    return own | {name: value for name, value in given.items() if name in own}


def run_notebooks(tier, device, scheduler, first):
    """Execute the notebooks from number `first` on, then print the claims and what was written.

    papermill runs in this one process, which starts four times faster than its command line.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    notebooks = find_notebooks()
    todo = [notebook for notebook in notebooks if notebook.name[:2] >= first]
    if not todo:
        sys.exit(f"no notebook {first} or later; there are {', '.join(n.stem for n in notebooks) or 'none'}")
    executed = results.data_directory(tier) / "executed"
    start = time.time()
    for number, notebook in enumerate(todo, 1):
        print(f"[{number:2d}/{len(todo)}] {notebook.stem}", flush=True)
        copy = executed / notebook.name
        go_on = f"go on with: ./run_all.sh {tier} --from {notebook.name[:2]}"
        started = time.perf_counter()
        try:
            with files.writing(copy):
                executed.mkdir(parents=True, exist_ok=True)
                copy.unlink(missing_ok=True)
                papermill.execute_notebook(
                    notebook,
                    copy,
                    parameters=notebook_parameters(notebook, tier, device=device, scheduler=scheduler),
                    kernel_name="python3",
                    cwd=notebook.parent,
                    progress_bar=False,
                    stderr_file=sys.stderr,  # the notebooks' own progress bars
                    extra_arguments=["--log-level=CRITICAL"],  # the kernel's own remarks would break those bars
                )
        except KeyboardInterrupt:
            print(f"\nInterrupted in {notebook.stem}; {go_on}", flush=True)
            raise
        except files.WriteError as error:
            sys.exit(f"run_all.sh: {error}. {_KEPT}; {go_on}")
        except _OutputError:
            raise
        except Exception as error:
            name, reason = type(error).__name__, str(error)
            if name == "PapermillExecutionError" and error.ename == "WriteError":
                sys.exit(f"run_all.sh: {error.evalue}. {_KEPT}; {go_on}")
            if isinstance(error, PapermillExecutionError):
                name, reason = error.ename, error.evalue
                print("\n".join(error.traceback))
            elif name == "DeadKernelError":
                reason += " (often for want of memory)"
            print(f"\nFAILED    {_shown(notebook)} after {time.perf_counter() - started:.1f} s")
            print(f"error     {name}: {reason}")
            print(f"executed  {_shown(copy) if copy.exists() else 'no copy: it did not start'}")
            sys.exit(1)
        print(f"        {time.perf_counter() - started:.1f} s", flush=True)

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # from KiB
    disk = sum(f.stat().st_size for f in results.data_directory(tier).rglob("*") if f.is_file()) / 2**20
    print(f"\n{tier} tier: {len(todo)} notebooks in {time.time() - start:.0f} s, ", end="")
    print(f"largest process {peak:.2f} GiB, {disk:.0f} MiB in {_shown(results.data_directory(tier))}")
    _print_claims(tier)
    _print_written(tier, start)
    try:
        claims.check_claims(tier)
    except RuntimeError as error:
        sys.exit(f"\n{error}")


def _print_claims(tier):
    print(f"\nClaims of the paper ({tier} tier)")
    print(claims.format_claims(tier))


def _print_written(tier, start):
    figures = results.figure_directory(tier)
    inner = [folder for folder in map(results.figure_directory, tiers.TIERS) if figures in folder.parents]
    written = [
        _shown(path)
        for path in sorted(figures.rglob("*"))
        if path.is_file() and path.stat().st_mtime >= start and not any(folder in path.parents for folder in inner)
    ]
    print(f"\n{len(written)} figures and tables written")
    print("\n".join(f"  {path}" for path in written))


def _shown(path):
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# --------------------------------------------------------------------------- verify


def verify_run(tier):
    """Compare a finished run with the committed claims, print what differs, and end with status 1 if anything does."""
    committed = verify.read_committed(tier)
    _check_finished(tier)
    table = verify.compare_claims(claims.claims_table(tier), committed)
    times = table["outcome"] == "time"
    wrong = table[~times & (table["outcome"] != "agrees")]
    print(f"Times and their ratios ({tier} tier), which are not compared")
    print(_as_text(table.loc[times, ["id", "committed", "here", "unit"]]))
    if not wrong.empty:
        print("\nClaims that differ from the committed ones")
        print(_as_text(wrong))
    print(f"\n{(~times).sum() - len(wrong)} of {(~times).sum()} claims agree with the committed ones")
    figures = results.figure_directory(tier)
    names = _figure_names()
    missing = [name for name in names if not any(figures.glob(f"{name}.*"))]
    print(f"{len(names) - len(missing)} of {len(names)} figures and tables are in {_shown(figures)}", end="")
    print(f"; missing: {', '.join(missing)}" if missing else "")
    if missing or not wrong.empty:
        sys.exit(1)


def _as_text(table):
    return table.astype(object).fillna("").to_markdown(index=False, tablefmt="simple", floatfmt=".4g")


def _check_finished(tier):
    """End with the command that is due, unless all notebooks have run one after the other to their ends."""
    executed = results.data_directory(tier) / "executed"
    if not executed.is_dir():
        sys.exit(f"run_all.sh: there is no run of the {tier} tier to verify; make it with: ./run_all.sh {tier}")
    before = ""
    for notebook in find_notebooks():
        try:
            about = json.loads((executed / notebook.name).read_text(encoding="utf-8"))["metadata"]["papermill"]
        except (FileNotFoundError, ValueError, KeyError):
            about = {"end_time": None, "exception": None}
        # The checks of notebook 99 fail where a claim contradicts its expected verdict: that is told below.
        failed = about["exception"] and not notebook.name.startswith("99")
        if failed or (about["end_time"] or "") <= before:
            go_on = f"go on with: ./run_all.sh {tier} --from {notebook.name[:2]}"
            sys.exit(f"run_all.sh: the run of the {tier} tier is unfinished; {go_on}")
        before = about["end_time"]


def _figure_names():
    """Names of the figures and tables that the notebooks write, without suffixes."""
    cells = (cell for path in find_notebooks() for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return sorted(set(re.findall(r'"((?:fig\d\d|n\d\d|table\d)_\w+|claims|claims_summary|settings)"', code)))


# ---------------------------------------------------------------- data sets, status


def plan_shards(tier, device="cpu"):
    """The shards that notebook 04 makes at a tier; none at tiers whose curves come from emulators."""
    p = tiers.TIERS[tier]
    return store.plan(
        {split: p[f"n_{split}"] for split in keys.SPLITS if p[f"n_{split}"]},
        directory=results.data_directory(tier) / "datasets",
        grid=PAPER_GRID,
        smoothing_sigma=reference.SMOOTHING_SIGMA,
        device=device,
        shard_size=p["shard_size"],
    )


def plan_runs(tier, device="cpu"):
    """The training runs of the final models that notebook 07 makes at a tier; what they learn from must be there."""
    p = tiers.TIERS[tier] | {"seed": notebook_parameters(_notebook("07"), tier)["seed"]}
    return runs.plan_models(
        [samples.source_of(tier, case) for case in p["trained_cases"]],
        directory=results.data_directory(tier) / "runs",
        hyperparameters=training.final_hyperparameters(tier),
        **{name: p[name] for name in ("n_estimators", "patience", "repeats", "seed", "pooling")},
        device=device,
    )


def _notebook(number):
    (notebook,) = (path for path in find_notebooks() if path.name.startswith(number))
    return notebook


def generate(tier, device, scheduler, shards):
    """Make the missing shards of a tier, or this process's share of them."""
    todo = store.share(plan_shards(tier, device), shards)
    with tasks.connect(scheduler, device=device) as client:
        made = store.generate(todo, client=client)
    print(f"{len(made)} shards are complete in {_shown(results.data_directory(tier) / 'datasets')}")


def print_status(tier, device):
    """Say what is there of a tier's data sets and models, and how long the rest takes."""
    shards = plan_shards(tier, device)
    if not shards:
        print(f"The {tier} tier simulates no data sets: its models learn from the curves of emulators")
        return
    table = store.status(shards)
    print(f"Data sets of the {tier} tier")
    print(table.drop(columns="trouble").reset_index().round(3).to_markdown(index=False, tablefmt="simple"))
    for trouble in filter(None, table["trouble"]):
        print(trouble)
    missing = int((table["planned"] - table["curves"]).sum())
    if missing:
        rate = table["seconds"].mean()  # of the shards that are there
        rest = f"{_duration(missing * rate)} at the rate so far, on one worker" if rate > 0 else "no rate measured yet"
        print(f"missing: {missing} curves; {rest}\nmodels: wait for the data sets")
        return
    planned = plan_runs(tier, device)
    done = runs.finished(planned)
    text = f"no curve is missing\nmodels: {len(done)} of {len(planned)} training runs are finished"
    if done and len(done) < len(planned):
        seconds = sum(fit.seconds for fit in runs.execute(done, progress=False)) / len(done)
        text += f"; {_duration((len(planned) - len(done)) * seconds)} for the rest, one at a time"
    print(text)


def _duration(seconds):
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.1f} min"


class _Stopped(KeyboardInterrupt):
    """A signal told this process to end; it unwinds as Ctrl-C does, which ends kernels and workers too."""


@contextmanager
def _signals_unwind():
    def stop(number, frame):
        for other in before:
            signal.signal(other, signal.SIG_IGN)  # a second one would disturb the clearing up
        raise _Stopped(number)

    # A signal that is ignored from the start stays so: nohup does that.
    ending = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _OutputError(OSError):
    """The standard output takes no more text: a closed pipe, or a full disk."""


class _Output:
    """The standard output, with errors that tell it from the files that are written."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        return self._tried(self._stream.write, text)

    def flush(self):
        self._tried(self._stream.flush)

    def _tried(self, method, *text):
        try:
            return method(*text)
        except OSError as error:
            # What Python still holds goes nowhere, or its end would bring the same error again.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            raise _OutputError(error.errno, error.strerror) from error


def _do(p):
    if isinstance(tasks.parse_scheduler(p.scheduler), str):
        with tasks.connect(p.scheduler):
            pass  # an address that does not answer is told before the first notebook, not in the fourth
    if p.task == "run":
        run_notebooks(p.tier, p.device, p.scheduler, p.first)
    elif p.task == "generate":
        generate(p.tier, p.device, p.scheduler, p.shards)
    elif p.task == "verify":
        verify_run(p.tier)
    else:
        print_status(p.tier, p.device)
    print(end="", flush=True)  # an output that takes no more is told here, not when Python ends


def main(arguments=None):
    """Entry point of ``python -m grfsaxs_lib.cli``; see ``run_all.sh --help`` for the options."""
    parser = argparse.ArgumentParser(prog="run_all.sh")
    parser.add_argument("task", choices=("run", "generate", "status", "verify"))
    parser.add_argument("tier", choices=tiers.TIERS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scheduler", default="")
    parser.add_argument("--shards", default="1/1")
    parser.add_argument("--from", dest="first", default="00")
    p = parser.parse_args(arguments)
    warnings.simplefilter("ignore", SmallBoxWarning)  # notebook 04 looks into it
    try:
        with _signals_unwind(), redirect_stdout(sys.stdout and _Output(sys.stdout)):
            _do(p)
    except KeyboardInterrupt as interrupt:
        if p.task == "generate":
            print(f"\nInterrupted. {_KEPT}; repeat the command", file=sys.stderr)
        sys.exit(128 + (interrupt.args[0] if isinstance(interrupt, _Stopped) else signal.SIGINT))
    except files.WriteError as error:
        sys.exit(f"run_all.sh: {error}. {_KEPT}; repeat the command")
    except _OutputError as error:
        sys.exit(f"run_all.sh: the standard output takes no more text: {error.strerror}. {_KEPT}")
    except (ValueError, OSError, tasks.ClusterError, backend.DeviceError) as error:
        remedy = files.REMEDIES.get(getattr(error, "errno", None))
        sys.exit(f"run_all.sh: {error}" + (f"; {remedy}" if remedy else ""))


if __name__ == "__main__":
    main()
