#!/usr/bin/env bash
# The table of contents: makes the environment, then executes the notebooks in order.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: ./run_all.sh [smoke|laptop|paper|generate|status|test|lab] [TIER] [options]

  laptop          all notebooks at sizes for two cores and no GPU (default)
  smoke           the same in a minute or two: tiny grids and data sets, for a first look and for the tests
  paper           512^3 voxels and the paper's number of curves: a GPU or a cluster
  generate TIER   only the data sets of a tier, those shards that are missing or damaged
  status TIER     what is there of a tier, what is missing, and how long the rest takes (--device gpu: trained there)
  test            ruff, the unit tests, the smoke tier, then every notebook again under nbval
  lab             JupyterLab in the same environment; more options go to JupyterLab

  --device gpu    simulate and train on a CUDA GPU; has an environment of its own, .venv-gpu
  --scheduler S   share the data sets and the training runs out over a Dask cluster: local:4 for four worker
                  processes on this machine, or the address of a scheduler, tcp://host:8786
  --shards 3/28   with generate: only the third of 28 shares of the shards, for a job array
  --from 06       begin with notebook 06, on the files that the earlier ones have left
  --help          this text

What is finished is kept: run the same again after an interruption.
The first call makes the environment, .venv; later calls use it again until requirements.lock
or pyproject.toml changes. PYTHON=/path/to/python3 chooses the interpreter it is made from (3.11 or newer).
HELP
}

fail() {
    printf 'run_all.sh: %s\n' "$*" >&2
    exit 1
}

command=laptop
tier=
device=cpu
scheduler=
shards=
from=
extra=()
[[ ${1-} =~ ^(smoke|laptop|paper|generate|status|test|lab)$ ]] && command=$1 && shift
[[ $command =~ ^(generate|status)$ && ${1-} =~ ^(smoke|laptop|paper)$ ]] && tier=$1 && shift
while (($#)); do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --device) device=${2-}; shift $(($# > 1)) ;;
        --device=*) device=${1#*=} ;;
        --scheduler) scheduler=${2-none}; shift $(($# > 1)) ;;
        --scheduler=*) scheduler=${1#*=} ;;
        --shards) shards=${2-none}; shift $(($# > 1)) ;;
        --shards=*) shards=${1#*=} ;;
        --from) from=${2-none}; shift $(($# > 1)) ;;
        --from=*) from=${1#*=} ;;
        *) [[ $command == lab ]] || fail "cannot make sense of '$1'; see ./run_all.sh --help"; extra+=("$1") ;;
    esac
    shift
done
[[ $device =~ ^(cpu|gpu)$ ]] || fail "--device must be cpu or gpu; got '$device'"
[[ -z $from || $from =~ ^[0-9][0-9]$ ]] || fail "--from takes the two digits of a notebook, as in 06; got '$from'"
[[ -z $from || $command =~ ^(smoke|laptop|paper)$ ]] || fail "--from goes with smoke, laptop or paper"
[[ -z $scheduler || $scheduler =~ ^(local:[1-9][0-9]*|[^[:space:]]+:[0-9]+)$ ]] ||
    fail "--scheduler takes local:N or an address like tcp://host:8786; got '$scheduler'"
[[ -z $scheduler || $command =~ ^(smoke|laptop|paper|generate)$ ]] ||
    fail "--scheduler goes with smoke, laptop, paper or generate"
[[ -z $shards || $shards =~ ^[1-9][0-9]*/[1-9][0-9]*$ ]] || fail "--shards takes k/n, as in 3/28; got '$shards'"
[[ -z $shards || $command == generate ]] || fail "--shards goes with generate"
[[ ! $command =~ ^(generate|status)$ || -n $tier ]] || fail "$command takes a tier: ./run_all.sh $command laptop"

cd "$(dirname "${BASH_SOURCE[0]}")"
venv=$PWD/.venv
[[ $device == cpu ]] || venv=$PWD/.venv-gpu
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
    echo "Making the environment $(basename "$venv") with $("$base" --version), once: about a minute and 1.4 GB ..."
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
        "${install[@]}" --constraint requirements.lock -e '.[gpu,cluster,notebooks,test]'
    fi
    recipe >"$venv/made-from.txt"
    echo "... done in $((SECONDS - start)) s"
}

# The notebooks of a tier, its data sets alone, or its status: grfsaxs_lib/pipeline.py, where the tiers' sizes stand.
pipeline() {
    "$python" -m grfsaxs_lib.pipeline "$1" "$2" --device "$device" --scheduler "$scheduler" \
        --shards "${shards:-1/1}" --from "${from:-00}"
}

run_tests() {
    step() { printf '\n== %s\n' "$1"; }
    step "ruff"
    "$python" -m ruff check --output-format concise .
    step "unit tests"
    # test_claims.py reads what the smoke tier records: it comes last.
    "$python" -m pytest -n 2 --ignore=tests/test_claims.py
    step "smoke tier"
    pipeline run smoke
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
    generate | status) pipeline "$command" "$tier" ;;
    *) pipeline run "$command" ;;
esac
