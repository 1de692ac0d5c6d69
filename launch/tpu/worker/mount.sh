#!/usr/bin/env bash
# On one host of a slice: mounts a bucket at ~/gcs/BUCKET, unless it is.
#
#   worker/mount.sh BUCKET
set -euo pipefail
folder=$HOME/gcs/$1

if mountpoint --quiet "$folder"; then
  exit
fi
command -v gcsfuse >/dev/null || {
  echo "error: gs://$1 cannot be mounted, gcsfuse is not installed; run launch/tpu/setup.sh with --bucket=$1" >&2
  exit 2
}
fusermount -uz "$folder" 2>/dev/null || true  # of a gcsfuse that has died
mkdir -p "$folder"
# No metadata is cached: a host must see at once what another has written. A checkpoint is complete once its folder is
# renamed, which a bucket without folders of its own (hierarchical namespace) does object by object, if at all.
gcsfuse --implicit-dirs --rename-dir-limit=200000 --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 \
  "$1" "$folder"
