"""A plan as a person reads it."""

from collections.abc import Mapping
from typing import Any

GB, TERA = 1e9, 1e12
ROWS = 16  # of the dearest operations


def line(record: Mapping[str, Any]) -> str:
  """One try of a batch size."""
  if not record["fits"]:
    return f"{_batch(record)}: {_memory(record)}"
  return (
    f"{_batch(record)}: {_memory(record)}; {record['step_seconds']['likely']:.3g} s, MFU {record['mfu']['likely']:.1%}"
  )


def table(record: Mapping[str, Any]) -> str:
  """The totals and the dearest operations."""
  rows = [
    ("chips", f"{record['chips']:,} of {_topology(record)}, mesh {_mesh(record)}"),
    ("parameters", f"{record['parameters']:,}"),
    ("batch", _batch(record)),
    ("memory", _memory(record)),
  ]
  if record["fits"]:
    rows += _costs(record)
  text = "\n".join(f"{name:<12}{value}" for name, value in rows)
  notes = "".join(f"\nnote: {note}" for note in record["notes"])
  return f"{record['stage']} on {_topology(record)}\n\n{text}\n{_operations(record)}{notes}"


def _costs(record: Mapping[str, Any]) -> list[tuple[str, str]]:
  received = sorted(record["collective_bytes_per_chip"].items(), key=lambda item: -item[1])
  kinds = ", ".join(f"{kind} {size / GB:.3g}" for kind, size in received if size)
  total = f"{sum(size for _, size in received) / GB:.3g} GB a chip"
  flops, of_model = record["flops_per_chip"] / TERA, record["model_flops_per_chip"] / TERA
  return [
    ("FLOPs", f"{flops:.4g} TFLOP a chip; {of_model:.4g} of the model"),
    ("HBM traffic", _traffic(record)),
    ("received", f"{total} ({kinds}), {record['synchronous_share']:.0%} synchronous" if kinds else "nothing"),
    ("step", " · ".join(f"{level} {seconds:.4g} s" for level, seconds in record["step_seconds"].items())),
    *([("an image", f"{record['times_an_image']:,} times that")] if "times_an_image" in record else []),
    ("MFU", " · ".join(f"{level} {share:.1%}" for level, share in record["mfu"].items())),
    ("compiled in", f"{record['compile_seconds']:.0f} s"),
  ]


def _traffic(record: Mapping[str, Any]) -> str:
  moved, needed = record["hbm_traffic_per_chip"], record.get("hbm_traffic_needed_per_chip")
  return f"{moved / GB:.4g} GB a chip" + (f", {moved / needed:.2f} × weights and caches" if needed else "")


def _operations(record: Mapping[str, Any]) -> str:
  listed = (record["operations"] or [])[:ROWS]
  if not listed:
    return ""
  width = max(len(operation["path"]) for operation in listed)
  lines = [f"{'dearest operations':<{width}}  {'':<24}{'ms':>10}{'share':>8}{'times':>8}"]
  lines += [
    f"{o['path']:<{width}}  {o['kind']:<24}{1e3 * o['seconds']:>10.3f}{o['share']:>8.1%}{o['count']:>8,}"
    for o in listed
  ]
  return "\n" + "\n".join(lines) + "\n"


def _topology(record: Mapping[str, Any]) -> str:
  slices = record["num_slices"]
  return record["topology"] if slices == 1 else f"{slices} × {record['topology']}"


def _mesh(record: Mapping[str, Any]) -> str:
  axes = [f"{axis} {size}" for axis, size in record["mesh"].items() if size > 1]
  return " × ".join(axes) or "of one device"


def _batch(record: Mapping[str, Any]) -> str:
  images = f" and {_count(record['images_per_chip'], 'image')}" if record["images_per_chip"] else ""
  return f"{_count(record['rows'], 'row')}; {_count(record['rows_per_chip'], 'row')}{images} a chip"


def _count(number: float, noun: str) -> str:
  return f"{number:,.10g} {noun}{'s' * (number != 1)}"


def _memory(record: Mapping[str, Any]) -> str:
  sizes = {name: size and size / GB for name, size in record["hbm_bytes_per_chip"].items()}
  total, capacity = sizes.pop("total"), record["hbm_capacity"] / GB
  if not record["fits"]:
    return "does not fit" + (f", {total:.2f} of {capacity:.2f} GB a chip" if total else "")
  parts = ", ".join(f"{name} {size:.3g}" for name, size in sizes.items())
  return f"{total:.2f} of {capacity:.2f} GB a chip ({parts})"
