#!/usr/bin/env bash
# Builds a wheel and checks that it holds every file of tfamp/: scripts/wheel.sh [OUTDIR]
#
# OUTDIR is dist unless given. A data file that setup.cfg forgets is an error here.
set -euo pipefail

# shellcheck source=scripts/venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
tfamp_environment dev
outdir=$(mkdir -p -- "${1:-dist}" && cd -- "${1:-dist}" && pwd -P)
cd -- "$tfamp_root"
# setuptools copies through build/, where a file that is gone from the source would live on.
rm -rf build/lib build/bdist.*
"$tfamp_python" -m build --quiet --wheel --outdir "$outdir" .
"$tfamp_python" - "$outdir" <<'PYTHON'
import pathlib
import sys
import zipfile

wheel = max(pathlib.Path(sys.argv[1]).glob("tfamp-*.whl"), key=lambda path: path.stat().st_mtime)
held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("tfamp/")}
source = {
    path.as_posix()
    for path in pathlib.Path("tfamp").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
if held != source:
    sys.exit(
        f"tfamp: {wheel.name} does not match tfamp/. "
        f"Missing: {sorted(source - held)}. Not in the source: {sorted(held - source)}."
    )
print(f"tfamp: {wheel} holds all {len(source)} files of tfamp/")
PYTHON
