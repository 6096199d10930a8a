"""Builds the Cython doors over csrc/ (all metadata is in pyproject.toml)."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-Icsrc"]
SOURCES = sorted(str(path) for path in Path("csrc").glob("*.c"))

setup(
    ext_modules=cythonize(
        [
            Extension(f"pyvirt._native.{door.stem}", [str(door), *SOURCES], extra_compile_args=FLAGS)
            for door in sorted(Path("pyvirt/_native").glob("*.pyx"))
        ],
        language_level=3,
    )
)
