#!/usr/bin/env bash
# The table of contents: makes the environment, then executes the notebooks in order.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: ./run_all.sh [smoke|laptop|paper|test|lab] [--device cpu|gpu] [--from NN] [--help]

  laptop          all notebooks at sizes for two cores and no GPU (default)
  smoke           the same in a minute or two: tiny grids and data sets, for a first look and for the tests
  paper           512^3 voxels and the paper's number of curves: a GPU or a cluster
  test            ruff, the unit tests, the smoke tier, then every notebook again under nbval
  lab             JupyterLab in the same environment; more options go to JupyterLab

  --device gpu    simulate and train on a CUDA GPU; has an environment of its own, .venv-gpu
  --from 06       begin with notebook 06, on the files that the earlier ones have left
  --help          this text

The first call makes the environment, .venv; later calls use it again until requirements.lock
or pyproject.toml changes. PYTHON=/path/to/python3 chooses the interpreter it is made from (3.11 or newer).
HELP
}

fail() {
    printf 'run_all.sh: %s\n' "$*" >&2
    exit 1
}

command=laptop
device=cpu
from=
extra=()
[[ ${1-} =~ ^(smoke|laptop|paper|test|lab)$ ]] && command=$1 && shift
while (($#)); do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --device) device=${2-}; shift $(($# > 1)) ;;
        --device=*) device=${1#*=} ;;
        --from) from=${2-none}; shift $(($# > 1)) ;;
        --from=*) from=${1#*=} ;;
        *) [[ $command == lab ]] || fail "cannot make sense of '$1'; see ./run_all.sh --help"; extra+=("$1") ;;
    esac
    shift
done
[[ $device =~ ^(cpu|gpu)$ ]] || fail "--device must be cpu or gpu; got '$device'"
[[ -z $from || $from =~ ^[0-9][0-9]$ ]] || fail "--from takes the two digits of a notebook, as in 06; got '$from'"
[[ -z $from || $command =~ ^(smoke|laptop|paper)$ ]] || fail "--from goes with smoke, laptop or paper"

cd "$(dirname "${BASH_SOURCE[0]}")"
venv=$PWD/.venv
[[ $device == cpu ]] || venv=$PWD/.venv-gpu
[[ $device == cpu || -e grfsaxs_lib/kernels/gpu.py ]] || fail "there are no GPU kernels yet; use --device cpu"
python=$venv/bin/python

# The environment is ours alone: nothing of the caller's Python or Jupyter set-up may leak into it.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV CONDA_PREFIX MPLBACKEND MATPLOTLIBRC GRFSAXS_ROOT
export PYTHONNOUSERSITE=1
export IPYTHONDIR=$venv/etc/ipython
export JUPYTER_PATH=$venv/share/jupyter  # first in the search: a kernel "python3" in the home folder must not win
export PYDEVD_DISABLE_FILE_VALIDATION=1  # else every kernel start prints a debugger warning
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}  # waiting threads sleep: they share few cores with other processes

find_python() {
    local candidate
    local candidates=(python3 python3.13 python3.12 python3.11 python)
    [[ -z ${PYTHON-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        # The interpreter behind a virtual environment, for that environment may be the one to be replaced.
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11) or print(sys._base_executable))' 2>/dev/null &&
            return
    done
    fail "needs Python 3.11 or newer; found $("${candidates[0]}" --version 2>&1 || echo none).
Install one, or name it: PYTHON=/path/to/python3.12 ./run_all.sh"
}

# What the environment was made from. It is written last, so an interrupted set-up starts anew.
recipe() {
    printf '%s\n' "$venv"
    cat requirements.lock pyproject.toml
}

make_environment() {
    if [[ -x $python ]] && recipe | cmp -s - "$venv/made-from.txt"; then
        return
    fi
    local base start=$SECONDS
    base=$(find_python)
    echo "Making the environment $(basename "$venv") with $("$base" --version), once: about a minute and 1 GB ..."
    rm -rf "$venv"
    "$base" -m venv "$venv" || fail "'$base -m venv' failed; on Debian and Ubuntu: apt install python3-venv"
    "$python" -m pip install --quiet --disable-pip-version-check uv
    # Without byte-code the first imports of every kernel take two to three times as long.
    local install=("$python" -m uv pip install --quiet --python "$python" --compile-bytecode)
    if [[ $device == cpu ]]; then
        "${install[@]}" --require-hashes -r requirements.lock
        "${install[@]}" --no-deps -e .
    else
        # The lock pins all but XGBoost and CuPy: their builds depend on the CUDA version at hand.
        "${install[@]}" --constraint requirements.lock -e '.[gpu,notebooks,test]'
    fi
    recipe >"$venv/made-from.txt"
    echo "... done in $((SECONDS - start)) s"
}

# run_notebooks TIER: papermill in this one process, which starts four times faster than its command line.
run_notebooks() {
    "$python" - "$1" "$device" "${from:-00}" <<'PYTHON'
import resource
import sys
import time
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

from grfsaxs_lib import paper

# A tier is this table: a notebook gets those parameters that its own parameters cell declares.
TIERS = {
    "smoke": dict(
        grid_size=64, voxel_size=1.0, smoothing_sigma=1.0,  # voxels an edge, nm, voxels
        n_train=48, n_validation=16, n_test=16, overwrite=True,  # 04
    ),
    "laptop": dict(
        grid_size=128, voxel_size=1.0, smoothing_sigma=1.0,
        figure_grid_size=512, figure_voxel_size=0.5, figure_smoothing_sigma=2.0,  # 02, 05, 08
        survey_grid_size=192, n_survey=24,  # 02
        n_train=1500, n_validation=250, n_test=250,  # 04
        n_estimators=3000, patience=100, repeats=2,  # 06
        n_draws=8, search_n_estimators=1000, search_patience=50,  # 06
        n_resample=2000,  # 07
        n_replicates=500,  # 08
        n_sigma=400, n_wide=1500, side_n_estimators=1500, side_patience=100,  # 09
        network_width=128, network_epochs=200,  # 09
    ),
    "paper": dict(
        grid_size=512, voxel_size=0.5, smoothing_sigma=2.0,
        figure_grid_size=512, figure_voxel_size=0.5, figure_smoothing_sigma=2.0,
        survey_grid_size=512, n_survey=36,
        n_train=2**19, n_validation=2**18, n_test=2**17,
        n_estimators=50_000, patience=1000, repeats=10,
        n_draws=20, search_n_estimators=50_000, search_patience=1000, search_pooling=1,
        n_resample=2000,
        n_replicates=500,
        n_sigma=2**14, n_wide=2**16, other_sigma=4.0, side_n_estimators=50_000, side_patience=1000,
        network_width=512, network_epochs=200,
    ),
}

tier, device, first = sys.argv[1:]
parameters = {"tier": tier, "device": device, **TIERS[tier]}
notebooks = sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb"))
todo = [notebook for notebook in notebooks if notebook.name[:2] >= first]
if not todo:
    sys.exit(f"run_all.sh: no notebook {first} or later; there are {', '.join(n.stem for n in notebooks) or 'none'}")

executed = paper.data_directory(tier) / "executed"
executed.mkdir(parents=True, exist_ok=True)
start = time.time()


def shown(path):
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


for number, notebook in enumerate(todo, 1):
    print(f"[{number:2d}/{len(todo)}] {notebook.stem}", flush=True)
    copy = executed / notebook.name
    copy.unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        declared = papermill.inspect_notebook(notebook)
        papermill.execute_notebook(
            notebook,
            copy,
            parameters={name: value for name, value in parameters.items() if name in declared},
            kernel_name="python3",
            cwd=notebook.parent,
            progress_bar=False,
            stderr_file=sys.stderr,  # the notebooks' own progress bars
            extra_arguments=["--log-level=ERROR"],  # the kernel's own remarks would break those bars
        )
    except KeyboardInterrupt:
        print(f"\nInterrupted in {notebook.stem}; go on with: ./run_all.sh {tier} --from {notebook.name[:2]}")
        sys.exit(130)
    except Exception as error:
        name, reason = type(error).__name__, str(error)
        if isinstance(error, PapermillExecutionError):
            name, reason = error.ename, error.evalue
            print("\n".join(error.traceback))
        elif name == "DeadKernelError":
            reason += " (often for want of memory)"
        print(f"\nFAILED    {notebook} after {time.perf_counter() - started:.1f} s")
        print(f"error     {name}: {reason}")
        print(f"executed  {shown(copy) if copy.exists() else 'no copy: it did not start'}")
        sys.exit(1)
    print(f"        {time.perf_counter() - started:.1f} s", flush=True)

peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # from KiB
disk = sum(f.stat().st_size for f in paper.data_directory(tier).rglob("*") if f.is_file()) / 2**20
print(f"\n{tier} tier: {len(todo)} notebooks in {time.time() - start:.0f} s, largest process {peak:.2f} GiB, ", end="")
print(f"{disk:.0f} MiB in {shown(paper.data_directory(tier))}")

claims = paper.claims_table(tier)
verdicts = claims["verdict"].where(claims["as_expected"], claims["verdict"] + "  <- unexpected")
table = claims[["notebook", "id", "paper_value", "tolerance", "value", "unit"]].assign(verdict=verdicts)
print(f"\nClaims of the paper ({tier} tier)")
table = table.rename(columns={"paper_value": "paper", "value": "ours"}).astype(object).fillna("")
print(table.to_markdown(index=False, tablefmt="simple", floatfmt=".4g"))
print(", ".join(f"{count} {verdict}" for verdict, count in claims["verdict"].value_counts().items()))

figures = paper.figure_directory(tier)
inner = [folder for folder in map(paper.figure_directory, TIERS) if figures in folder.parents]  # of other tiers
written = [
    shown(path)
    for path in sorted(figures.rglob("*"))
    if path.is_file() and path.stat().st_mtime >= start and not any(folder in path.parents for folder in inner)
]
print(f"\n{len(written)} figures and tables written")
print("\n".join(f"  {path}" for path in written))
try:
    paper.check_claims(tier)
except RuntimeError as error:
    sys.exit(f"\n{error}")
PYTHON
}

run_tests() {
    step() { printf '\n== %s\n' "$1"; }
    step "ruff"
    "$python" -m ruff check --output-format concise .
    step "unit tests"
    # test_claims.py reads what the smoke tier records: it comes last.
    "$python" -m pytest -n 2 --ignore=tests/test_claims.py
    step "smoke tier"
    run_notebooks smoke
    step "nbval: every notebook, stored check outputs compared"
    # One after the other: later notebooks read files that earlier ones write again here.
    "$python" -m pytest -p nbval --nbval-lax --nbval-current-env notebooks
    step "claims of the smoke tier"
    "$python" -m pytest tests/test_claims.py
}

make_environment
case $command in
    test) run_tests ;;
    lab) exec "$python" -m jupyter lab ${extra[@]+"${extra[@]}"} notebooks/00_start_here.ipynb ;;
    *) run_notebooks "$command" ;;
esac
