"""What `pyproject.toml` cannot say: the two folders beside the package are parts of it once it is installed.

A checkout has `configs/` and `launch/` where one looks for them; in somebody's site-packages names as common as these
would be in the way, so that they are `omniimage.configs` and `omniimage.launch` there.
"""

from setuptools import find_packages, setup

INSIDE = {"omniimage.configs": "configs", "omniimage.launch": "launch"}

setup(packages=[*find_packages(include=["omniimage*"]), *INSIDE], package_dir=INSIDE)
