#!/usr/bin/env bash
# The table of contents: makes the environment, then executes the notebooks in order.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: ./run_all.sh [quick|laptop|paper|generate|status|verify|test|lab|book|analyse] [TIER] [options]
       ./run_all.sh analyse FILE ... [options]

  laptop          all notebooks at sizes for two cores and no GPU (default)
  quick           all notebooks with few curves, for a first look and for the tests
  paper           512^3 voxels and the paper's number of curves: a GPU or a cluster
  generate TIER   only the data sets of a tier: makes the shards that are missing or damaged
  status TIER     what is finished of a tier, what is missing, and how long the rest takes
  verify TIER     whether a finished run, of the laptop tier if none is named, agrees with the committed claims
  test            ruff, the unit tests, the quick tier, every notebook with its solutions under nbval, the claims
  lab             JupyterLab in the same environment; options that are not below go to JupyterLab
  book            the lessons with their results, all texts and the API reference as a web site in data/book/html;
                  has an environment of its own, .venv-book
  analyse FILE    the structure behind measured curves; its own options: ./run_all.sh analyse --help

  --device gpu    simulate and train on a CUDA GPU (status: what was trained there); has an environment of its own,
                  .venv-gpu
  --scheduler S   with a tier or generate: share the data sets and the training runs out over a Dask cluster;
                  local:4 for four worker processes on this machine, or the address of a scheduler, tcp://host:8786
  --shards 3/28   with generate: only the third of 28 shares of the shards, for a job array
  --from 07       with a tier: begin with notebook 07, on the files of the earlier ones
  --help          this text

The table of tiers in README.md says how long each takes. Finished shards and training runs are kept: repeat
the command after an interruption, or begin with --from at the notebook that was running.

The first call makes the environment, .venv; later calls use it again until requirements.lock or pyproject.toml
changes (status: even then). An environment that another run uses, or that this script has not made, is never replaced.
PYTHON=/path/to/python3 chooses the interpreter that it is made from (3.11 or newer). Of the caller's other PYTHON*,
PIP_* and UV_* variables, only those that say where packages come from and how they are reached have an effect.
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
[[ ${1-} =~ ^(quick|laptop|paper|generate|status|verify|test|lab|book|analyse)$ ]] && command=$1 && shift
[[ $command =~ ^(generate|status|verify)$ && ${1-} =~ ^(quick|laptop|paper)$ ]] && tier=$1 && shift
[[ $command == analyse ]] && extra=("$@") && set --
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
[[ -z $from || $command =~ ^(quick|laptop|paper)$ ]] || fail "--from goes with quick, laptop or paper"
[[ -z $scheduler || $scheduler =~ ^(local:[1-9][0-9]*|[^[:space:]]+:[0-9]+)$ ]] ||
    fail "--scheduler takes local:N or an address like tcp://host:8786; got '$scheduler'"
[[ -z $scheduler || $command =~ ^(quick|laptop|paper|generate)$ ]] ||
    fail "--scheduler goes with quick, laptop, paper or generate"
[[ -z $shards || $shards =~ ^[1-9][0-9]*/[1-9][0-9]*$ ]] || fail "--shards takes k/n, as in 3/28; got '$shards'"
[[ -z $shards || $command == generate ]] || fail "--shards goes with generate"
[[ $device == cpu || $command != book ]] || fail "--device does not go with book"
[[ ! $command =~ ^(generate|status)$ || -n $tier ]] || fail "$command takes a tier: ./run_all.sh $command laptop"

# The folder of the script itself, whatever links lead to it; ./ keeps cd from looking elsewhere.
script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do
    target=$(readlink "$script")
    [[ $target == /* ]] || target=$(dirname -- "$script")/$target
    script=$target
done
[[ $script == /* ]] || script=./$script
caller=$PWD
cd -P "$(dirname "$script")"
if [[ ! -d grfsaxs_lib || ! -d notebooks ]] || ! grep -qs '^name = "grfsaxs"$' pyproject.toml; then
    fail "this script must be in the repository of grfsaxs, but $PWD is another folder: call the script in the repository"
fi

venv=$PWD/.venv
[[ $device == cpu ]] || venv=$PWD/.venv-gpu
[[ $command != book ]] || venv=$PWD/.venv-book
python=$venv/bin/python
# shellcheck source=environment.sh
source ./environment.sh

# The notebooks of a tier, its data sets alone, or its status: grfsaxs_lib/cli.py, where the tiers' sizes stand.
# The first word says how it is called: exec, or supervise where something comes after it.
pipeline() {
    "$1" "$python" -m grfsaxs_lib.cli "$2" "$3" --device "$device" --scheduler "$scheduler" \
        --shards "${shards:-1/1}" --from "${from:-00}"
}

run_tests() {
    local copies=data/quick/with_solutions
    step() { printf '\n== %s\n' "$1"; }
    end_with=INT # pytest clears up after Ctrl-C, and not after TERM
    step "ruff"
    supervise "$python" -m ruff check --output-format concise .
    step "unit tests"
    # test_claims.py reads what the quick tier records: it comes last.
    supervise "$python" -m pytest -n 2 --dist worksteal --ignore=tests/test_claims.py
    step "quick tier"
    pipeline supervise run quick
    step "nbval: every notebook with the solutions of its exercises, stored check outputs compared"
    # Each notebook in one process, for its cells share a kernel. Those before have left the files that it reads.
    supervise "$python" tests/with_solutions.py "$copies"
    supervise "$python" -m pytest -n 2 --dist loadfile -p nbval --nbval-lax --nbval-current-env "$copies"
    step "claims of the quick tier"
    supervise "$python" -m pytest tests/test_claims.py
}

clean_variables
make_environment
case $command in
    test) run_tests ;;
    analyse) cd "$caller" && exec "$python" -m grfsaxs_lib.commands analyse ${extra[@]+"${extra[@]}"} ;;
    book) exec "$python" docs/book/build.py ;;
    lab) exec "$python" -m jupyter lab ${extra[@]+"${extra[@]}"} notebooks/00_start_here.ipynb ;;
    generate | status) pipeline exec "$command" "$tier" ;;
    verify) pipeline exec verify "${tier:-laptop}" ;;
    *) pipeline exec run "$command" ;;
esac
