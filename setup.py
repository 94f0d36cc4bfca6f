"""One import package: the folders at the top of the repository are installed as ``failsoft.<folder>``.

pyproject.toml has everything else; setuptools cannot say this mapping there and still find the subfolders.
"""

from setuptools import find_packages, setup

FOLDERS = ("schemas", "topics", "models", "workers")

setup(
    packages=[f"failsoft.{name}" for name in find_packages(include=[p for f in FOLDERS for p in (f, f"{f}.*")])],
    package_dir={f"failsoft.{folder}": folder for folder in FOLDERS},
)
