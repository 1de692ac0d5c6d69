#!/usr/bin/env bash
# Asks Cloud TPU for one slice. The request waits in a queue until there are chips; then the slice runs, and is charged,
# until delete.sh.
#
#   launch/tpu/queue.sh --name=omni-1b --project=my-project --zone=us-west4-a --topology=v5e:16x16 [--spot]
#
#   --name             of the request and of the slice
#   --project, --zone  where; each zone has its own kinds of TPU
#   --topology         chip and shape as launch.plan takes them: v5e:2x4, v6e:16x16, v5p:8x8x8, v4:4x4x4
#   --spot             cheaper, and may be taken away at any time
#   --reserved         from the project's reservation
#   --service_account  email of the account that the hosts act as; default: the project's Compute Engine account
#   --runtime_version  software of the hosts; default: the one for the chip
#   --dry_run          prints the commands and runs nothing
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

topology="" spot="" reserved="" service_account="" runtime_version=""
parse_flags "name project zone topology service_account runtime_version" "spot reserved" "$@"
require name project zone topology
[ -z "$spot" ] || [ -z "$reserved" ] || fail "--spot and --reserved exclude each other; give one of them"
read_topology "$topology"

options=()
[ -z "$spot" ] || options+=(--spot)
[ -z "$reserved" ] || options+=(--reserved)
[ -z "$service_account" ] || options+=("--service-account=$service_account")

run gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$zone" --project="$project" \
  --accelerator-type="$(accelerator_type)" --runtime-version="${runtime_version:-$(runtime_version_of "$chip")}" \
  ${options[@]+"${options[@]}"}
