#!/usr/bin/env bash
# On one host of a slice, called by launch/tpu/train.sh: starts launch.train in the background, unless it runs.
# It prints to ~/omniimage-train.log.
#
#   worker/train.sh --config=… --workdir=gs://BUCKET/FOLDER …
set -euo pipefail
cd "$(dirname "$0")/../../.."
log=$HOME/omniimage-train.log

arguments=()
for argument in "$@"; do
  if [[ $argument == --workdir=gs://* ]]; then
    path=${argument#--workdir=gs://}
    bash launch/tpu/worker/mount.sh "${path%%/*}"
    argument=--workdir=$HOME/gcs/$path
  fi
  arguments+=("$argument")
done

# The lock is the training's: it inherits the open file, and its end, of whatever kind, opens the lock.
exec 9>"$HOME/omniimage-train.lock"
if ! flock --nonblock 9; then
  echo "$(hostname): training runs already"
  exit
fi
nohup setsid "$HOME/omniimage-venv/bin/python" -m launch.train "${arguments[@]}" >>"$log" 2>&1 </dev/null &
sleep "${OMNIIMAGE_WATCH_SECONDS:-5}"  # long enough for a wrong flag to show
if kill -0 $! 2>/dev/null; then
  echo "$(hostname): training runs, $log"
else
  code=0
  wait $! || code=$?
  echo "$(hostname): training ended with code $code: $(tail -n 1 "$log")"
  exit "$code"
fi
