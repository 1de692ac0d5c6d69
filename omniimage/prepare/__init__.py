"""From a source to a prepared data set (`omniimage.data.prepared`), in steps that a kill between any two leaves whole.

  source ──► units ──► parts, one a unit ──► duplicates left out ──► shards, index ──► dataset.json

`prepare.py` is the order of it. What one process does at a time, a task, writes its files whole and is skipped where
they are there; `pool.py` runs tasks in the processes of this machine, `beam.py` as an Apache Beam pipeline on many.
"""
