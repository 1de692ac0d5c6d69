#!/usr/bin/env bash
# Trains a config on a slice: starts launch.train on every host, in the background. The same command again starts it
# where it has stopped, and training goes on from its last checkpoint; where it still runs it is left alone.
#
#   launch/tpu/train.sh --name=omni-1b --project=my-project --zone=us-west4-a \
#     --config=configs/omni.py:1b --workdir=gs://my-bucket/runs/omni-1b [--config.KEY=VALUE …]
#
#   --name, --project, --zone  as given to queue.sh
#   --config         a config of the commit that setup.sh has installed, with its variant
#   --config.KEY     changes a setting, as with launch.train
#   --workdir        gs://BUCKET/FOLDER, which the hosts mount, or a path from / on a file system that all of them share
#   --stop           has the training save and end instead; needs neither --config nor --workdir
#   --dry_run        prints the commands and runs nothing
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

config="" workdir="" stop=""
parse_flags "name project zone config workdir" "stop" "$@"
require name project zone

if [ -n "$stop" ]; then
  on_workers all "pkill --signal TERM --full '[-]m launch[.]train' || echo 'nothing to stop'"
  exit
fi
require config workdir
case $workdir in
  gs://?*/?* | /?*) ;;
  *) fail "--workdir=$workdir would be a folder of its own on every host; give gs://BUCKET/FOLDER, or a path from / that all hosts share" ;;
esac

on_workers all "bash omniimage/launch/tpu/worker/train.sh $(
  line --config="$config" --workdir="$workdir" ${overrides[@]+"${overrides[@]}"}
)"
