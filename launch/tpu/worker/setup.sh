#!/usr/bin/env bash
# On one host of a slice, called by launch/tpu/setup.sh: the virtual environment and, if named, the bucket.
#
#   worker/setup.sh [BUCKET]
set -euo pipefail
cd "$(dirname "$0")/../../.."
venv=$HOME/omniimage-venv

if [ ! -x "$venv/bin/pip" ]; then
  # The hosts' own Python is often older than 3.11; uv, a package of it, installs one in the home folder.
  if ! python=$(scripts/find_python 3.11 2>/dev/null); then
    python3 -m pip install --quiet --user uv
    python3 -m uv python install --quiet 3.12
    python=$(python3 -m uv python find --no-project --managed-python 3.12)
  fi
  "$python" -m venv --clear "$venv"
fi
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet --editable '.[tpu]'

if [ $# -gt 0 ]; then
  if ! command -v gcsfuse >/dev/null; then
    key=/usr/share/keyrings/cloud.google.asc
    curl --fail --silent --show-error https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -c -s) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get update --quiet --quiet
    sudo apt-get install --quiet --quiet --yes -o DPkg::Lock::Timeout=300 gcsfuse  # after a boot apt may be busy
  fi
  bash launch/tpu/worker/mount.sh "$1"
fi
echo "$(hostname): ready, $("$venv/bin/python" -c 'import jax; print("jax", jax.__version__)')"
