#!/usr/bin/env bash
# Make .venv with exactly the packages of envs/constraints.txt, and the system libraries that Open3D links.
#   bash envs/setup.sh          (what `make setup` runs; PYTHON=/path/to/python3.11 chooses the interpreter)
# pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, pip.conf) apply.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
log=.venv/setup.log

if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "Python 3.11 is needed, and '$python' is not one." >&2
    echo "  mend:    install it (Debian 12: apt-get install python3.11 python3.11-venv), or: make setup PYTHON=/path/to/python3.11" >&2
    exit 2
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "'$python' cannot make virtual environments: its venv module is not installed." >&2
    echo "  mend:    apt-get install python3.11-venv" >&2
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

echo "setting up .venv (once)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
: >"$log"
pip=(.venv/bin/python -m pip install --no-input --disable-pip-version-check)
torch=$(grep '^torch==' envs/constraints.txt)
quietly "$torch" "${pip[@]}" -c envs/constraints.txt "$torch"
quietly "$(grep -c == envs/constraints.txt) packages of envs/constraints.txt" "${pip[@]}" -r envs/constraints.txt
quietly "system libraries" .venv/bin/python envs/system_libraries.py
touch .venv/.ready
