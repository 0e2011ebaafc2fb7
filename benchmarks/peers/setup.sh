#!/usr/bin/env bash
# Installs the peers of the benchmarks into .cache/peers and makes their models: npm and PyPI, about 2 GB and ten minutes.
# What is there already is left alone; rm -rf .cache/peers begins anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD peers=$PWD/.cache/peers
mkdir -p "$peers/models"

say() { printf 'peers: %s\n' "$*" >&2; }

if [ ! -e "$peers/node_modules/.package-lock.json" ]; then
  say "libraries of pages, from npm"
  cp benchmarks/peers/package.json "$peers/"
  npm install --prefix "$peers" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
fi

venv() { # NAME: requirements from benchmarks/peers/NAME.txt
  [ -e "$peers/$1/stamp" ] && return
  say "Python libraries: $1"
  "${PYTHON:-python3}" -m venv "$peers/$1"
  "$peers/$1/bin/pip" install --quiet --disable-pip-version-check -r "benchmarks/peers/$1.txt"
  # the converter names jax and decision forests, which it needs for formats that are not used here
  [ "$1" != tf ] || "$peers/$1/bin/pip" install --quiet --no-deps tensorflowjs==4.22.0 tensorflow-hub==0.16.1
  touch "$peers/$1/stamp"
}
venv python
venv tf

say "bundles"
mkdir -p "$peers/sources"
cp benchmarks/peers/bundles/*.js "$peers/sources/"
"$peers/node_modules/.bin/esbuild" "$peers"/sources/*.js --bundle --minify --format=esm --splitting --platform=browser \
  --outdir="$peers/bundles" --out-extension:.js=.mjs --log-level=error \
  --external:{fs,path,os,crypto,worker_threads,perf_hooks,util}

if [ ! -e "$peers/models/stamp" ]; then
  export PYTHONPATH=$here/src:$here
  say "models: ONNX"
  "$peers/python/bin/python" -m benchmarks.peers.build_onnx "$peers/models" >/dev/null
  say "models: TensorFlow Lite, TensorFlow.js"
  "$peers/tf/bin/python" -m benchmarks.peers.build_tensorflow "$peers/models" >/dev/null
  touch "$peers/models/stamp"
fi
