"""The mapping of the top folders to one import package: each is installed as ``failsoft.<folder>``.

All other settings are in pyproject.toml. There setuptools cannot both map folders and find their subfolders.
"""

from setuptools import find_packages, setup

FOLDERS = ("schemas", "topics", "models", "workers")

setup(
    packages=[f"failsoft.{name}" for name in find_packages(include=[p for f in FOLDERS for p in (f, f"{f}.*")])],
    package_dir={f"failsoft.{folder}": folder for folder in FOLDERS},
)
