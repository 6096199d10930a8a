"""Builds the doors (`.pyx`) and the programs over csrc/; all metadata is in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

LIBRARY = sorted(map(str, Path("csrc").glob("*.c")))
HEADERS = sorted(map(str, Path("csrc").rglob("*.h")))
OPTIMISE = ["-O3", "-g0", "-fvisibility=hidden", "-Icsrc"]
# What Cython writes compares signed with unsigned numbers, and Python's own flags warn of that.
DOOR = [*OPTIMISE, "-Wno-sign-compare"]
PROGRAM = ["-Os", "-s", "-std=c11", "-Wall", "-Wextra", "-Icsrc", "-D_GNU_SOURCE"]
# What loads a library of the system when it runs; all others need nothing but the kernel.
LOADING = {"enter"}
TRIM = ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]


class Program(Extension):
    """A static executable, built where an extension module of its name would be."""


class Build(build_ext):
    """Builds programs as well, so that wheels, editable and in-place builds all carry them."""

    def get_ext_filename(self, fullname):
        if isinstance(self.ext_map.get(fullname), Program):
            return fullname.replace(".", "/")
        return super().get_ext_filename(fullname)

    def build_extensions(self):
        archive = self._archive()
        for ext in self.extensions:
            ext.extra_objects = [archive]
        super().build_extensions()

    def _archive(self):
        """All of csrc/*.c, compiled once for every door and program."""
        archive = Path(self.build_temp, "libpv.a")
        if self.force or newer_group([*LIBRARY, *HEADERS], str(archive)):
            objects = self.compiler.compile(
                LIBRARY, output_dir=self.build_temp, extra_postargs=OPTIMISE
            )
            archive.unlink(missing_ok=True)
            self.compiler.create_static_lib(objects, "pv", output_dir=self.build_temp)
        return str(archive)

    def build_extension(self, ext):
        if not isinstance(ext, Program):
            super().build_extension(ext)
            return
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.force or newer_group([*ext.sources, *ext.depends], str(target)):
            kind = "-ldl" if target.name in LOADING else "-static"
            flags = [*PROGRAM, *TRIM, "-o", str(target)]
            self.spawn([*self.compiler.linker_exe, *flags, *ext.sources, *ext.extra_objects, kind])

    def copy_extensions_to_source(self):
        Path("pyvirt/_native/bin").mkdir(exist_ok=True)
        super().copy_extensions_to_source()


def program(path):
    """The program of one C file, or of a folder of them."""
    sources = sorted(map(str, path.glob("*.c"))) if path.is_dir() else [str(path)]
    return Program(f"pyvirt._native.bin.{path.stem}", sources, depends=[*LIBRARY, *HEADERS])


def door(path):
    """The extension module of one `.pyx`; *depends* also puts its files into the sdist."""
    return Extension(
        f"pyvirt._native.{path.stem}",
        [str(path)],
        depends=[str(path), *LIBRARY, *HEADERS],
        extra_compile_args=DOOR,
    )


# Nothing that the stubs would have to mention.
DIRECTIVES = {"language_level": 3, "autotestdict": False, "auto_pickle": False}

doors = [door(path) for path in sorted(Path("pyvirt/_native").glob("*.pyx"))]
programs = [
    program(path)
    for path in sorted(Path("csrc/programs").iterdir())
    if path.suffix == ".c" or any(path.glob("*.c"))
]
setup(
    ext_modules=[*cythonize(doors, compiler_directives=DIRECTIVES), *programs],
    cmdclass={"build_ext": Build},
)
