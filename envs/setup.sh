#!/usr/bin/env bash
# Make .venv with exactly the packages of envs/constraints.txt, and the system libraries that Open3D links.
#   bash envs/setup.sh          (what `make setup` runs; PYTHON=/path/to/python3.12 chooses the interpreter, else the
#                                first of python3.11, on which every test runs, to python3.13 that is there)
# pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, pip.conf) apply.
set -euo pipefail
cd "$(dirname "$0")/.."
log=.venv/setup.log

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
makes_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

python=""
found=""
for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    supported "$candidate" || continue  # also the names of a version manager behind which nothing is installed
    found=${found:-$candidate}
    if makes_venvs "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$found" ]; then
    echo "Python 3.11, 3.12 or 3.13 is needed, and ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>/dev/null || echo none)." >&2
    echo "  fix:     install one (Debian 12: apt-get install python3.11 python3.11-venv; Debian 13: python3.13 python3.13-venv;" >&2
    echo "           Ubuntu 24.04: python3.12 python3.12-venv), or: make setup PYTHON=/path/to/python3.12" >&2
    exit 2
fi
if [ -z "$python" ]; then
    echo "'$found' cannot make virtual environments: its venv module is not installed." >&2
    echo "  fix:     apt-get install python$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" >&2
    exit 2
fi

quietly() {  # quietly WHAT COMMAND...: one line on the terminal, the rest in the log; the end of the log when it fails
    local what="$1" start=$SECONDS
    shift
    printf '  %-44s' "$what"
    if ! "$@" >>"$log" 2>&1; then
        echo "FAILED"
        tail -n 15 "$log" >&2
        echo "  (all of it: $log)" >&2
        exit 2
    fi
    echo "$((SECONDS - start)) s"
}

[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "setting up .venv with $(.venv/bin/python --version) (once)"
: >"$log"
pip=(.venv/bin/python -m pip install --no-input --disable-pip-version-check)
torch=$(grep '^torch==' envs/constraints.txt)
quietly "$torch" "${pip[@]}" -c envs/constraints.txt "$torch"
quietly "$(grep -c == envs/constraints.txt) packages of envs/constraints.txt" "${pip[@]}" -r envs/constraints.txt
quietly "this package (threedrs)" "${pip[@]}" --no-deps --no-build-isolation -e . -e workflow/logger
quietly "system libraries" .venv/bin/python envs/system_libraries.py
touch .venv/.ready
