# The Python environment of run_all.sh, which sources this file: one that is made under a lock, and removed only if it
# is ours. It is a file of its own so that run_all.sh stays a table of contents.
# shellcheck shell=bash disable=SC2154 # venv, python, device and command are set there
#
# made-from.txt is the mark of an environment that is ours. It is written first, with one word, and last with all that
# the environment was made from, so that a set-up that was cut off starts anew. The environment is made where it stays,
# since its scripts hold its path, and the one before is kept aside until the new one is complete.
#
#   .venv.lock  held by a run_all.sh that looks at the environment, or makes it
#   .venv.used  shared by all runs that use the environment, and held alone by one that replaces it

# The caller's settings for Python, pip, uv or Jupyter must not leak in, except those that say where packages come from
# and how they are reached and cached.
clean_variables() {
    local name charmap
    for name in "${!PYTHON@}" "${!PIP_@}" "${!UV_@}"; do
        case $name in
            PYTHON) ;; # the interpreter to make the environment from
            PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_NO_INDEX | PIP_FIND_LINKS | PIP_CONFIG_FILE) ;;
            PIP_CERT | PIP_CLIENT_CERT | PIP_TRUSTED_HOST | PIP_PROXY | PIP_KEYRING_PROVIDER | PIP_USE_FEATURE) ;;
            PIP_TIMEOUT | PIP_DEFAULT_TIMEOUT | PIP_RETRIES | PIP_CACHE_DIR | PIP_NO_CACHE_DIR) ;;
            UV_INDEX | UV_INDEX_* | UV_DEFAULT_INDEX | UV_EXTRA_INDEX_URL | UV_NO_INDEX | UV_FIND_LINKS) ;;
            UV_CONFIG_FILE | UV_NATIVE_TLS | UV_SYSTEM_CERTS | UV_INSECURE_HOST | UV_KEYRING_PROVIDER) ;;
            UV_HTTP_* | UV_REQUEST_TIMEOUT | UV_OFFLINE | UV_CACHE_DIR | UV_NO_CACHE | UV_LINK_MODE) ;;
            *) unset "$name" ;;
        esac
    done
    unset CDPATH VIRTUAL_ENV CONDA_PREFIX MPLBACKEND MATPLOTLIBRC GRFSAXS_ROOT
    export PYTHONNOUSERSITE=1
    export PYTHONUTF8=1
    # Up to 3.12 Python reads the path of this folder, which pip has noted, in the encoding of the locale.
    for name in "${LC_ALL-}" C.UTF-8 C.utf8 en_US.UTF-8; do
        charmap=$(LC_ALL=$name locale charmap 2>/dev/null) || true
        [[ $charmap != UTF-8 ]] || break
    done
    [[ -z $name || $charmap != UTF-8 ]] || export LC_ALL=$name
    export IPYTHONDIR=$venv/etc/ipython
    export JUPYTER_PATH=$venv/share/jupyter # first in the search: a kernel "python3" in the home folder must not win
    export PYDEVD_DISABLE_FILE_VALIDATION=1 # else every kernel start prints a debugger warning
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} # waiting threads sleep: they share few cores with other processes
}

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

# ---------------------------------------------------------------------------------------------- steps that signals end

child=        # a step in progress: the number of its process group
end_with=TERM # the signal that ends it

# Run a command that ends with this script. Python starts it, since in bash a command in the background ignores Ctrl-C.
supervise() {
    "$any_python" -I -S -c '
import os, signal, sys
os.setpgid(0, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])' "$@" </dev/null &
    child=$!
    local status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

stop() {
    trap '' HUP INT TERM
    if [[ -n $child ]]; then
        local tries=100 # of a fifth of a second: pytest and notebooks take a while to clear up
        kill -"$end_with" -- "-$child" 2>/dev/null || kill "$child" 2>/dev/null || true
        while ((tries--)) && kill -0 "$child" 2>/dev/null; do sleep 0.2; done
        # What is left of the group has outlived the process that knew of it.
        kill -TERM -- "-$child" 2>/dev/null && sleep 0.2
        kill -KILL -- "-$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    exit $((128 + $1))
}

# -------------------------------------------------------------------------------------------------- the environment

# lock DESCRIPTOR KIND SECONDS: take the lock of an open file for as long as it is open. Status 75: somebody else has
# it. flock(2) by way of Python, since not every system has the command flock.
lock() {
    "$any_python" -I -S -c '
import fcntl, sys, time
file, kind, patience = int(sys.argv[1]), getattr(fcntl, "LOCK_" + sys.argv[2]), float(sys.argv[3])
end = time.monotonic() + patience
while True:
    try:
        sys.exit(fcntl.flock(file, kind | fcntl.LOCK_NB))
    except BlockingIOError:
        if time.monotonic() > end:
            sys.exit(75)
        time.sleep(0.05)
    except OSError:
        sys.exit()  # a file system without locks: as if alone' "$@"
}

recipe() {
    printf '%s\n' "$venv"
    cat requirements.lock pyproject.toml
    [[ $command != book ]] || cat docs/book/requirements.txt
}

works() {
    "$python" -I -S -c '' 2>/dev/null
}

is_complete() {
    works && [[ -f $venv/made-from.txt && $(head -n 1 "$venv/made-from.txt") != incomplete ]]
}

is_current() {
    works && recipe | cmp -s - "$venv/made-from.txt"
}

# Remove an environment of ours, its mark last: whatever is left of it is still marked.
discard() {
    [[ -e $1 || -L $1 ]] || return 0
    rmdir "$1" 2>/dev/null && return
    [[ ! -L $1 && -f $1/made-from.txt ]] ||
        fail "$1 was not made by run_all.sh, so it is not replaced: move it away or delete it, and repeat the command"
    find "$1" -mindepth 1 -maxdepth 1 ! -name made-from.txt -exec rm -rf {} +
    rm -rf "$1"
}

undo_environment() {
    discard "$venv"
    if [[ -e $venv.before ]]; then
        mv "$venv.before" "$venv"
        echo "run_all.sh: the new environment was not completed, and the one before is back in its place" >&2
    else
        echo "run_all.sh: the environment was not completed; the messages above say why. Repeat the command" >&2
    fi
}

build_environment() {
    local base start=$SECONDS
    base=$(find_python)
    if is_complete && [[ ! -L $venv ]]; then
        discard "$venv.before"
        mv "$venv" "$venv.before"
    else
        discard "$venv"
    fi
    echo "Making the environment ${venv##*/} with $("$base" --version), once: one or two minutes and 1.4 GB ..."
    any_python=$base
    trap undo_environment EXIT
    mkdir "$venv"
    echo incomplete >"$venv/made-from.txt"
    supervise "$base" -m venv "$venv" || fail "'$base -m venv' failed; on Debian and Ubuntu: apt install python3-venv"
    supervise "$python" -m pip install --quiet --no-input --disable-pip-version-check uv
    # Without byte-code the first imports of every kernel take two to three times as long.
    local install=("$python" -m uv pip install --quiet --python "$python" --compile-bytecode)
    if [[ $command == book ]]; then
        supervise "${install[@]}" --constraint requirements.lock -r docs/book/requirements.txt -e .
    elif [[ $device == cpu ]]; then
        supervise "${install[@]}" --require-hashes -r requirements.lock
        supervise "${install[@]}" --no-deps -e .
    else
        # The lock pins all but XGBoost and CuPy: their builds depend on the CUDA version at hand.
        supervise "${install[@]}" --constraint requirements.lock -e '.[gpu,cluster,notebooks,test]'
    fi
    recipe >"$venv/made-from.new"
    mv "$venv/made-from.new" "$venv/made-from.txt"
    trap - EXIT
    discard "$venv.before"
    echo "... done in $((SECONDS - start)) s"
}

# Leave an environment that fits, and hold a lock on it for as long as this script, or what it becomes, is running.
make_environment() {
    any_python=$python
    works || any_python=$(find_python)
    if ! { : >>"$venv.lock" && : >>"$venv.used"; } 2>/dev/null; then
        is_current || { [[ $command == status ]] && is_complete; } ||
            fail "cannot write in $PWD, where the environment goes: make that possible, or work in a copy"
        return # in a read-only folder nobody replaces the environment
    fi
    exec 8>>"$venv.used" 9>>"$venv.lock"
    if ! lock 9 EX 1; then
        echo "Waiting for another run_all.sh, which makes the environment ..."
        until lock 9 EX 1; do
            works || any_python=$(find_python) # for the other one may have removed it
        done
    fi
    if is_current; then
        [[ ! -f $venv.before/made-from.txt ]] || discard "$venv.before" # a set-up was killed at its very end
    elif [[ $command == status ]] && is_complete; then
        echo "run_all.sh: ${venv##*/} was made from an earlier requirements.lock or pyproject.toml; a run makes it anew" >&2
    elif lock 8 EX 0; then
        build_environment
    else
        fail "requirements.lock or pyproject.toml has changed, and another run still uses ${venv##*/}: repeat the command later"
    fi
    lock 8 SH 5 || fail "another run_all.sh is replacing ${venv##*/}: repeat the command later"
    exec 9>&-
}

trap 'stop 1' HUP
trap 'stop 2' INT
trap 'stop 15' TERM
