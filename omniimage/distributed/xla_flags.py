"""Options of the TPU compiler, for each chip, each with its reason. Measured ahead of time: docs/results.md."""

SPARSE_CORES = {  # v5p and later chips have cores that can run collectives while the matrix units work
  # Without it every collective of a v5p holds up the core.
  "xla_tpu_enable_sparse_core_collective_offload_all_gather": "true",
  "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": "true",
  "xla_tpu_enable_sparse_core_collective_offload_all_reduce": "true",
  # A ring over a plane of the torus is a gather in two dimensions, which is not offloaded unless it is asked for.
  "xla_tpu_enable_sparse_core_collective_offload_2d_all_gather": "true",
  "xla_tpu_enable_sparse_core_collective_offload_3d_all_gather": "true",
}

STEPPED = {  # v5e has no such cores: there a gather is cut into steps, each fused with work that runs meanwhile
  # A gather written as an all-reduce of padded slices would hold up the core.
  "xla_tpu_prefer_async_allgather_to_allreduce": "true",
}

# Not among them: xla_tpu_enable_async_collective_fusion_fuse_kloop_fusions, with which elementwise work would carry
# steps of gathers too. libtpu 0.0.50 dies of it on many models, and where it does not, the plan is no faster.

OPTIONS: dict[str, dict[str, str]] = {"v5e": STEPPED, "v5p": SPARSE_CORES}


def compiler_options(chip: str) -> dict[str, str]:
  """Options for a chip's name as `omniimage.planning.chips` has it; none for a chip that needs none."""
  return dict(OPTIONS.get(chip, {}))
