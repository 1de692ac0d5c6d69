#!/usr/bin/env bash
# Deletes a slice with all its hosts and their disks, or a request that still waits. Charging ends. The bucket stays.
#
#   launch/tpu/delete.sh --name=omni-1b --project=my-project --zone=us-west4-a
#
#   --name, --project, --zone  as given to queue.sh
#   --yes      does not ask
#   --dry_run  prints the commands and runs nothing
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

yes=""
parse_flags "name project zone" "yes" "$@"
require name project zone

run gcloud compute tpus queued-resources delete "$name" --zone="$zone" --project="$project" --force ${yes:+--quiet}
