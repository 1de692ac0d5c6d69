#!/usr/bin/env bash
# Prepares every host of a slice: the code at one commit in ~/omniimage, a virtual environment with omniimage[tpu] in
# ~/omniimage-venv, and the bucket mounted at ~/gcs/BUCKET. Can be run again, also with another commit.
#
#   launch/tpu/setup.sh --name=omni-1b --project=my-project --zone=us-west4-a --bucket=my-bucket
#
#   --name, --project, --zone  as given to queue.sh
#   --bucket      mounts this Cloud Storage bucket with gcsfuse, which is installed
#   --repository  a checkout here, from which the commit is copied, or a URL, from which the hosts clone;
#                 default: the checkout that this script is in
#   --commit      what to install; of a URL its full hash, a tag or a branch; default: HEAD. What is not committed stays here
#   --dry_run     prints the commands and runs nothing
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

bucket="" commit=HEAD repository=$(cd "$(dirname "$0")/../.." && pwd)
parse_flags "name project zone bucket repository commit" "" "$@"
require name project zone
bucket=${bucket#gs://}
[[ $bucket != */* ]] || fail "--bucket=$bucket must be a bucket alone, as in --bucket=$(example_of bucket)"

if [[ $repository == *://* || $repository == git@* ]]; then
  url=$(quoted "$repository")
  on_workers all "{ test -d omniimage/.git || { rm -rf omniimage && git clone --quiet $url omniimage; }; } && \
git -C omniimage fetch --quiet $url $(quoted "$commit") && git -C omniimage checkout --quiet --force --detach FETCH_HEAD"
else
  [ -e "$repository/.git" ] ||
    fail "--repository=$repository is neither a URL nor a git checkout; give one of them, or leave it out"
  git -C "$repository" rev-parse --quiet --verify "$commit^{commit}" >/dev/null ||
    fail "--commit=$commit is not in $repository; give a hash, a tag or a branch of it"
  archive=${TMPDIR:-/tmp}/omniimage.tar.gz
  run git -C "$repository" archive --format=tar.gz --output="$archive" "$commit"
  run gcloud compute tpus tpu-vm scp "$archive" "$name:omniimage.tar.gz" --zone="$zone" --project="$project" --worker=all
  on_workers all "rm -rf omniimage && mkdir omniimage && tar -xzf omniimage.tar.gz -C omniimage"
fi
on_workers all "bash omniimage/launch/tpu/worker/setup.sh${bucket:+ $(quoted "$bucket")}"
