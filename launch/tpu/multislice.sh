#!/usr/bin/env bash
# Trains on several slices, on Google Kubernetes Engine through XPK (pip install xpk).
#
#   launch/tpu/multislice.sh ACTION --FLAG=VALUE …
#
#   image    builds the image of this checkout and pushes it      --image
#   cluster  makes a cluster of slices, with the bucket attached  --cluster --topology --slices --bucket
#            [--spot | --reservation=…]; again with other --slices it changes their number
#   train    starts a training on all slices                      --cluster --workload --topology --slices --image
#            --config --workdir [--max_restarts=50] [--config.KEY=VALUE …]
#   logs     follows what the first host of the first slice prints  --workload
#   stop     stops a training; after it, train goes on from the last checkpoint  --cluster --workload
#   delete   deletes the cluster with its slices                  --cluster [--yes]
#
#   cluster, train, stop and delete also need --project and --zone.
#
#   --topology       of one slice, as launch.plan takes it: v5e:16x16, v5p:8x8x8
#   --image          name of the image, with its registry: us-docker.pkg.dev/my-project/omniimage/train:1
#   --bucket         a Cloud Storage bucket; hosts see it at /gcs/BUCKET
#   --workdir        gs://BUCKET/FOLDER in the bucket that is attached
#   --max_restarts   how often training is started again by itself after a host or slice was lost
#   --dry_run        prints the commands and runs nothing
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

actions="image, cluster, train, logs, stop or delete"
case ${1:-} in
  image | cluster | train | logs | stop | delete) action=$1 ;;
  --help | -h) help ;;
  "") fail "an action is missing; give $actions first, as in multislice.sh train; see --help" ;;
  *) fail "'$1' is not an action; give $actions first, as in multislice.sh train; see --help" ;;
esac
shift
cluster="" workload="" topology="" slices="" image="" bucket="" config="" workdir=""
max_restarts=50 reservation="" spot="" yes=""
parse_flags "cluster workload project zone topology slices image bucket config workdir max_restarts reservation" \
  "spot yes" "$@"

storage=omniimage-workdir  # what the cluster calls the bucket
storage_options=implicit-dirs,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0,file-system:rename-dir-limit:200000
where=(--cluster="$cluster" --project="$project" --zone="$zone")

image() {
  require image
  local root
  root=$(cd "$(dirname "$0")/../.." && pwd)
  run docker build --platform=linux/amd64 --file="$root/launch/tpu/Dockerfile" --tag="$image" "$root"
  run docker push "$image"
}

cluster() {
  require cluster project zone topology slices bucket
  local capacity=--on-demand
  [ -z "$spot" ] || [ -z "$reservation" ] || fail "--spot and --reservation exclude each other; give one of them"
  [ -z "$spot" ] || capacity=--spot
  [ -z "$reservation" ] || capacity=--reservation=$reservation
  require_whole slices 1
  read_topology "$topology"
  run xpk cluster create "${where[@]}" --tpu-type="$(xpk_type)" --num-slices="$slices" "$capacity" \
    --enable-workload-identity --enable-gcsfuse-csi-driver
  run xpk storage attach "$storage" "${where[@]}" --type=gcsfuse --bucket="$bucket" --mount-point="/gcs/$bucket" \
    --readonly=false --auto-mount=false --size=1000 --mount-options="$storage_options" --no-prefetch-metadata
}

train() {
  require cluster workload project zone topology slices image config workdir
  require_whole slices 1
  require_whole max_restarts 0
  read_topology "$topology"
  [[ $workdir == gs://?*/?* ]] ||
    fail "--workdir=$workdir is not in a bucket; give gs://BUCKET/FOLDER with the cluster's bucket"
  run xpk workload create "${where[@]}" --workload="$workload" --tpu-type="$(xpk_type)" --num-slices="$slices" \
    --docker-image="$image" --storage="$storage" --max-restarts="$max_restarts" --restart-on-exit-codes=1,75 \
    --command="python -m launch.train $(
      line --config="$config" --workdir="/gcs/${workdir#gs://}" ${overrides[@]+"${overrides[@]}"}
    )"
}

logs() {
  require workload
  local set=jobset.sigs.k8s.io
  run kubectl logs --follow --tail=100 --container=jax-tpu \
    --selector="$set/jobset-name=$workload,$set/job-index=0,batch.kubernetes.io/job-completion-index=0"
}

stop() {
  require cluster workload project zone
  run xpk workload delete "${where[@]}" --workload="$workload" --force
}

delete() {
  require cluster project zone
  run xpk cluster delete "${where[@]}" ${yes:+--force}
}

"$action"
