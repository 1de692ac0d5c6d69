# Shared by the scripts of this folder: flags, topologies, and `run`. Sourced, not run. Kept to what bash 3.2 knows.
# shellcheck shell=bash

name="" project="" zone="" dry_run=""

# What a flag looks like, for error messages.
example_of() {
  case $1 in
    bucket) echo my-bucket ;;
    cluster) echo omniimage ;;
    commit) echo HEAD ;;
    config) echo configs/omni.py:1b ;;
    image) echo us-docker.pkg.dev/my-project/omniimage/train:1 ;;
    max_restarts) echo 50 ;;
    name) echo omni-1b ;;
    project) echo my-project ;;
    slices) echo 2 ;;
    topology) echo v5e:16x16 ;;
    workdir) echo gs://my-bucket/runs/omni-1b ;;
    worker) echo 0 ;;
    workload) echo omni-1b ;;
    zone) echo us-west4-a ;;
    *) echo VALUE ;;
  esac
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# The comment at the head of the script that was called.
help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit 0
}

# parse_flags "FLAG …" "SWITCH …" ARGUMENT …: --flag=value and --flag value set $flag, --switch sets $switch to 1.
# Overrides of the config, --config.KEY=VALUE, are collected in the array `overrides` where --config is a flag.
overrides=()
parse_flags() {
  local flags=" $1 " switches=" $2 dry_run " argument key
  shift 2
  while [ $# -gt 0 ]; do
    argument=$1
    shift
    key=${argument%%=*}
    key=${key#--}
    key=${key//-/_}
    case $argument in
      --help | -h) help ;;
      --config.*=*)
        [[ $flags == *" config "* ]] || fail "$argument: ${0##*/} takes no config; see --help"
        overrides+=("$argument")
        continue
        ;;
      --?*) ;;
      *) fail "'$argument' is not a flag; flags begin with --, as in --name=$(example_of name); see --help" ;;
    esac
    if [[ $switches == *" $key "* ]]; then
      [[ $argument != *=* ]] || fail "$argument: --$key takes no value; leave out '=${argument#*=}'"
      printf -v "$key" 1
    elif [[ $flags == *" $key "* ]]; then
      if [[ $argument != *=* ]]; then
        [ $# -gt 0 ] || fail "--$key needs a value, as in --$key=$(example_of "$key")"
        argument=$argument=$1
        shift
      fi
      [ -n "${argument#*=}" ] || fail "--$key is empty; give a value, as in --$key=$(example_of "$key")"
      printf -v "$key" %s "${argument#*=}"
    else
      fail "--$key is not a flag of ${0##*/}; it takes$(for key in $flags $switches; do printf ' --%s' "$key"; done)"
    fi
  done
}

# require FLAG …: each must have been given.
require() {
  local key
  for key in "$@"; do
    [ -n "${!key}" ] || fail "--$key is missing; give it, as in --$key=$(example_of "$key")"
  done
}

# require_whole FLAG MINIMUM
require_whole() {
  [[ ${!1} =~ ^[0-9]+$ ]] && [ "${!1}" -ge "$2" ] ||
    fail "--$1=${!1} must be a whole number of at least $2, as in --$1=$(example_of "$1")"
}

# read_topology v5p:4x4x4: sets chip=v5p, shape=4x4x4, chips=64.
read_topology() {
  local size sizes expected
  [[ $1 =~ ^(v4|v5e|v5p|v6e):([0-9]+(x[0-9]+)+)$ ]] ||
    fail "--topology=$1 is not a chip and a shape; give v4, v5e, v5p or v6e with its shape, as in v5e:16x16 or v5p:8x8x8"
  chip=${BASH_REMATCH[1]} shape=${BASH_REMATCH[2]} chips=1
  IFS=x read -r -a sizes <<<"$shape"
  for size in "${sizes[@]}"; do
    chips=$((chips * 10#$size))
  done
  case $chip in
    v5e | v6e)
      expected="1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16 or 16x16"
      [[ " ${expected//[,or]/ } " == *" $shape "* ]] ||
        fail "--topology=$1: $chip has no slice of shape $shape; it has $expected, as in $chip:16x16"
      ;;
    v4 | v5p)
      [ ${#sizes[@]} -eq 3 ] ||
        fail "--topology=$1: a slice of $chip has three sizes, not ${#sizes[@]}, as in $chip:4x4x4"
      case $shape in 2x2x1 | 2x2x2 | 2x2x4 | 2x4x4) return ;; esac
      for size in "${sizes[@]}"; do
        [ $((10#$size % 4)) -eq 0 ] && [ $((10#$size)) -gt 0 ] ||
          fail "--topology=$1: $chip has 2x2x1, 2x2x2, 2x2x4, 2x4x4 and shapes of multiples of 4, as in $chip:4x4x8"
      done
      ;;
  esac
}

# What Cloud TPU calls it. v4 and v5p are counted in TensorCores, two on a chip, the others in chips.
accelerator_type() {
  case $chip in
    v5e) echo "v5litepod-$chips" ;;
    v6e) echo "v6e-$chips" ;;
    v4 | v5p) echo "$chip-$((2 * chips))" ;;
  esac
}

# What XPK calls it. For v4 and v5p it names the shape, since several shapes have the same number of chips.
xpk_type() {
  case $chip in
    v4 | v5p) echo "$chip-$shape" ;;
    *) accelerator_type ;;
  esac
}

# The software on the hosts of a slice, for JAX.
runtime_version_of() {
  case $1 in
    v4) echo tpu-ubuntu2204-base ;;
    v5e) echo v2-alpha-tpuv5-lite ;;
    v5p) echo v2-alpha-tpuv5 ;;
    v6e) echo v2-alpha-tpuv6e ;;
  esac
}

# A word, quoted for a shell where it needs to be; of --flag=value only the value.
quoted() {
  local word=$1
  if [[ $word =~ ^--[a-z-]+= ]]; then
    printf %s "${BASH_REMATCH[0]}"
    word=${word#*=}
  fi
  if [[ $word =~ ^[A-Za-z0-9_./:=@%+,~-]+$ ]]; then
    printf %s "$word"
  else
    printf "'%s'" "$(printf %s "$word" | sed "s/'/'\\\\''/g")"
  fi
}

# Words as one line that a shell reads back.
line() {
  local word separator=""
  for word in "$@"; do
    printf '%s%s' "$separator" "$(quoted "$word")"
    separator=" "
  done
  printf '\n'
}

# Runs a command, or with --dry_run prints it.
run() {
  if [ -n "$dry_run" ]; then
    line "$@"
  else
    command -v "$1" >/dev/null || fail "$1 is not installed; docs/tpu.md says how; --dry_run shows what would run"
    line "$@" >&2
    "$@"
  fi
}

# on_workers WHICH COMMAND: runs a line of shell on the hosts of the slice $name; WHICH is a number, or all.
on_workers() {
  run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --project="$project" --worker="$1" --command="$2"
}
