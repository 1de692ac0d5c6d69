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

FUSED = {
  # Elementwise work may carry a step too: without it a sixth of the gathers finds nothing to hide behind. libtpu 0.0.50
  # dies of an illegal instruction on some models where it is set.
  "xla_tpu_enable_async_collective_fusion_fuse_kloop_fusions": "true",
}

OPTIONS: dict[str, dict[str, str]] = {"v5e": STEPPED, "v5p": SPARSE_CORES}


def compiler_options(chip: str, fuse_gathers: bool) -> dict[str, str]:
  """Options for a chip's name as `omniimage.planning.chips` has it; none for a chip that needs none."""
  return {**OPTIONS.get(chip, {}), **(FUSED if fuse_gathers and chip == "v5e" else {})}
