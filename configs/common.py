"""What all configs share. A config file starts from `base()` and changes what it needs."""

from ml_collections import ConfigDict


def base() -> ConfigDict:
  config = ConfigDict()
  config.system = "omni"  # what is trained
  config.seed = 0  # of parameters, data and noise
  config.compute_dtype = "float32"  # of activations; or bfloat16, or auto. Weights are always float32
  config.scan_layers = False  # unrolled layers are faster on CPU; large models compile faster scanned
  config.gather_params = "compiler"  # of layers over mesh.fsdp; "hand" is faster on large meshes
  config.remat = "none"  # what the backward pass recomputes: projections, mlp, attention, full, or none; or offload

  # Weights of LPIPS, which launch.convert writes: for stages with a weight for pixel_lpips or diffusion_lpips, and for
  # the suite quality.
  config.lpips = "models/lpips/alexnet.safetensors"

  config.data = data = ConfigDict()
  data.drop_text = 0.1  # share of conversations without their text, so that sampling can be guided
  data.aspect_ratios = ("1:1",)  # width:height of the buckets, each of about image_size² pixels; the first is drawn
  data.packing_rows = 1024  # rows that one block of records is packed into
  data.vocabulary = "builtin"  # or the path of a byte-level tokenizer.json
  data.codes = ""  # folder of `launch.prepare --tokenize`: stages that need no pixels read codes instead of images
  data.max_bad_records = 0.05  # share of the last 512 that may be unreadable; above it the run stops
  data.workers = 0  # processes that read and decode ahead; 0: two threads of the run's own

  config.optimizer = optimizer = ConfigDict()
  optimizer.muon_rms = 1.0  # of Muon's updates of the layers' matrices, in learning rates; 0: AdamW for all
  optimizer.b1 = 0.9  # of AdamW
  optimizer.b2 = 0.95
  optimizer.weight_decay = 0.05  # of matrices and tables
  optimizer.clip_norm = 1.0  # of each part's gradient
  optimizer.final_rate = 0.05  # learning rate at the end of a stage, as a share of its peak
  optimizer.ema_decay = 0.995

  config.sampling = sampling = ConfigDict()
  sampling.temperature = 1.0
  sampling.top_k = 0  # 0 keeps all
  sampling.top_p = 1.0  # 1 keeps all
  sampling.min_p = 0.0  # ids less likely than this share of the likeliest are not drawn; 0 keeps all
  sampling.guidance = 1.0  # of the prior against no text; 1 is none
  sampling.diffusion_steps = 20  # a chunk
  sampling.solver = "euler"  # or heun, multistep
  sampling.time_shift = 1.0  # above 1, more of the steps are near the noise
  sampling.chunk_rows = -1  # patch rows painted at a time; -1: as trained, the first of decoder.chunk_rows
  sampling.chunk_columns = -1  # patch columns painted at a time; 0: the whole width; -1: as trained
  sampling.token_guidance = 1.0  # of the painter against no visual tokens; 1 is none
  sampling.text_guidance = 1.0  # of the painter against no text; 1 is none
  sampling.guidance_from = 0.0  # times, 0 noise and 1 clean, between which the painter is guided
  sampling.guidance_until = 1.0

  config.mesh = mesh = ConfigDict()
  mesh.data = -1  # all devices that remain
  mesh.fsdp = 1
  mesh.tensor = 1
  mesh.sequence = 1

  config.faults = faults = ConfigDict()
  faults.spike_score = 10.0  # deviations above the median of the last losses
  faults.skip_spikes = False  # early in training the losses of good batches jump
  faults.roll_back_after = 10  # steps in a row without a finite loss and gradient
  faults.end_hanging_after = 0  # seconds that a process may hang before the run ends, to be started again; 0: no end

  config.run = run = ConfigDict()
  run.keep_checkpoints = 2  # the last so many
  run.keep_every = 0  # steps; 0 keeps no others
  run.log_every = 10  # steps
  return config


def stage(**changes) -> ConfigDict:
  """A stage in which nothing moves and nothing is learnt, until `changes` say what."""
  row = ConfigDict()
  row.weights = ConfigDict(
    dict(text=0.0, image=0.0, diffusion=0.0, diffusion_lpips=0.0, pixel=0.0, pixel_lpips=0.0, z=0.0)
  )
  row.steps = 0
  row.rows = 1  # packed rows in a global batch
  row.accumulate = 1  # microbatches a step is split into
  row.warmup_steps = 0
  row.rates = ConfigDict(dict(tokenizer=0.0, prior=0.0, decoder=0.0))  # at their peak; 0: the part does not move
  row.sampled_codes = 0.0  # share of images painted from codes drawn from the prior's own logits
  row.corrupted_codes = 0.0  # share of the codes that images are painted from that are any others
  row.few_steps = 0.0  # share of images that teach the painter long steps; needs decoder.reads_gap
  row.source_weights = ()  # how often each source of a mixture is drawn in this stage; (): as data.source says
  row.update(changes)
  return row
