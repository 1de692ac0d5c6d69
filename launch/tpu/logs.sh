#!/usr/bin/env bash
# Follows what training prints on a host, until Ctrl-C. Training goes on.
#
#   launch/tpu/logs.sh --name=omni-1b --project=my-project --zone=us-west4-a
#
#   --name, --project, --zone  as given to queue.sh
#   --worker   the host; default: 0, which prints the progress
#   --dry_run  prints the commands and runs nothing
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

worker=0
parse_flags "name project zone worker" "" "$@"
require name project zone
require_whole worker 0

on_workers "$worker" "tail --lines=100 --follow=name --retry omniimage-train.log"
