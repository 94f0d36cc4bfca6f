"""The mapping of the top folders to one import package: each is installed as ``failsoft.<folder>``.

All other settings are in pyproject.toml. There setuptools cannot both map folders and find their subfolders.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = ("schemas", "topics", "models", "workers")


class Build(build_py):
    """Adds the package's own ``__init__.py``, which has no place in the repository.

    Without it ``failsoft`` would be a namespace package, and a clone of the repository in the working directory would
    take the place of the installed code. An editable install has none: its code is the repository's.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            text = '"""failsoft: scores Kafka events with ONNX models."""\n'
            Path(self.build_lib, "failsoft", "__init__.py").write_text(text, encoding="utf-8")


setup(
    cmdclass={"build_py": Build},
    packages=[f"failsoft.{name}" for name in find_packages(include=[p for f in FOLDERS for p in (f, f"{f}.*")])],
    package_dir={f"failsoft.{folder}": folder for folder in FOLDERS},
)
