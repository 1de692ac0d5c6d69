"""Joins the processes of a run: one on every host of a TPU slice or of several slices. Elsewhere there is one process,
and nothing to do.

JAX finds address, number and index of the processes by itself. What it does not say beforehand is whether there are
several; this file asks where JAX asks: the environment on Kubernetes, the metadata server on Compute Engine.
"""

import importlib.util
import os
import re
import time
import urllib.error
import urllib.request

import jax

from omniimage.errors import UserError


def initialize():
  """Joins this process with the others, if there are others. Call it before any device is used."""
  count = process_count()
  if count == 1 or jax.distributed.is_initialized():
    return
  try:
    jax.distributed.initialize()
  except Exception as error:  # of the metadata, the network or the coordinator; all say it in their own way
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    raise UserError(
      f"this process could not join the {count} of the run: {reason}; start the same command on every host, as "
      "launch/tpu/train.sh does, and let them reach one another on port 8482"
    ) from error


def process_count() -> int:
  """Hosts of a slice times slices; 1 where there is no TPU, or where JAX is told not to use it."""
  if jax.config.jax_platforms and "tpu" not in jax.config.jax_platforms.split(","):
    return 1
  hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
  slices = os.environ.get("MEGASCALE_NUM_SLICES")
  if hosts is None and _may_be_tpu_vm():
    hosts = _metadata("worker-network-endpoints")
    found = re.search(r"MEGASCALE_NUM_SLICES:\s*'?(\d+)", _metadata("tpu-env") or "") if hosts else None
    slices = slices or (found and found[1])
  return len((hosts or "").split(",")) * int(slices or 1)


def _may_be_tpu_vm() -> bool:
  """JAX sets TPU_SKIP_MDS_QUERY where it sees no chips; Kubernetes and Colab set it for all their hosts."""
  return importlib.util.find_spec("libtpu") is not None and "TPU_SKIP_MDS_QUERY" not in os.environ


def _metadata(attribute: str, tries: int = 5) -> str | None:
  """An attribute of this host; None where it has none, or where there is no metadata server."""
  server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
  url = f"http://{server}/computeMetadata/v1/instance/attributes/{attribute}"
  request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
  for attempt in range(tries):
    try:
      with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()
    except urllib.error.HTTPError as error:
      if error.code == 404:
        return None
      problem = f"{error.code} {error.reason}"
    except urllib.error.URLError:  # no such server: not on Compute Engine
      return None
    except OSError as error:
      problem = str(error)
    time.sleep(0.1 * 2**attempt)
  raise UserError(f"the metadata server of this host does not say {attribute} ({problem}); start the command again")
