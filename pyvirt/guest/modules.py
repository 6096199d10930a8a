"""Kernel modules: what each needs, which hardware it drives, and the tables modprobe reads.

A downloaded kernel package has no modules.dep and no modules.alias (depmod writes them when
the package is installed), so the answers are read from the modules themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from attrs import frozen

from pyvirt.guest import elf


@frozen
class Module:
    """A kernel module: `path` is relative to the folder of its kernel version."""

    name: str
    path: str
    depends: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Modules or aliases to load first if they exist (`softdep: pre`)."""


def name_of(path: str) -> str:
    """The name of the module in file *path*: kernel names have no dashes."""
    return path.rpartition("/")[2].split(".ko")[0].replace("-", "_")


def catalogue(paths: Iterable[str]) -> dict[str, str]:
    """Module names → paths, from the paths of all files of a kernel version."""
    return {name_of(path): path for path in sorted(paths) if ".ko" in path.rpartition("/")[2]}


def builtin(text: str) -> frozenset[str]:
    """The names of the modules that a `modules.builtin` file says are in the kernel itself."""
    return frozenset(name_of(line) for line in text.split())


def read(path: str, data: bytes) -> Module:
    """What module file *data* (uncompressed) says of itself in its `.modinfo` section."""
    fields: dict[str, list[str]] = {}
    for item in elf.read(data, path).section(".modinfo").split(b"\0"):
        key, _, value = item.decode("utf-8", "replace").partition("=")
        fields.setdefault(key, []).append(value)
    return Module(
        name_of(path),
        path,
        tuple(_names(fields.get("depends", []))),
        tuple(fields.get("alias", [])),
        tuple(_before(fields.get("softdep", []))),
    )


def closure(wanted: Iterable[str], load: Callable[[str], Module | None]) -> dict[str, Module]:
    """The *wanted* modules with all that they need, each after its needs.

    *load* gives the module of a name, or None when there is no such module (it is built
    into the kernel, or this kernel has none).
    """
    found: dict[str, Module] = {}
    for name in wanted:
        _collect(name, load, found, set())
    return found


def _collect(
    name: str, load: Callable[[str], Module | None], found: dict[str, Module], above: set[str]
) -> None:
    if name in found or name in above:
        return
    module = load(name)
    if module is None:
        return
    for need in module.depends:
        _collect(need, load, found, above | {name})
    found[name] = module


def order(module: str, modules: Mapping[str, Module]) -> list[str]:
    """*module* and all it needs, in the order in which they are loaded."""
    return list(closure([module], modules.get))


def matching(alias: str, modules: Iterable[Module]) -> list[str]:
    """The names of the modules that drive hardware with this `modalias`."""
    name = alias.replace("-", "_")
    return [
        module.name
        for module in modules
        if module.name == name or any(fnmatchcase(alias, p) for p in module.aliases)
    ]


def modules_dep(modules: Mapping[str, Module]) -> str:
    """The text of `modules.dep`: a module, then what it needs, nearest first."""
    return "".join(
        f"{module.path}: {' '.join(modules[n].path for n in _needs(module, modules))}".rstrip()
        + "\n"
        for module in modules.values()
    )


def _needs(module: Module, modules: Mapping[str, Module]) -> list[str]:
    return order(module.name, modules)[-2::-1]


def modules_alias(modules: Mapping[str, Module]) -> str:
    """The text of `modules.alias`."""
    return "".join(f"alias {a} {m.name}\n" for m in modules.values() for a in m.aliases)


def modules_softdep(modules: Mapping[str, Module]) -> str:
    """The text of `modules.softdep`, with the soft needs that are among *modules*."""
    lines = ((m.name, soft_needs(m, modules)) for m in modules.values())
    return "".join(f"softdep {name} pre: {' '.join(needs)}\n" for name, needs in lines if needs)


def soft_needs(module: Module, modules: Mapping[str, Module]) -> list[str]:
    """The names of those *modules* that go before *module* without being needed by it."""
    return [name for alias in module.before for name in matching(alias, modules.values())]


def _names(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (name.replace("-", "_") for name in text.split(",") if name)


def _before(texts: Iterable[str]) -> Iterator[str]:
    """The names after `pre:` in softdep texts such as `pre: a b post: c`."""
    for text in texts:
        kind = ""
        for word in text.split():
            if word.endswith(":"):
                kind = word
            elif kind == "pre:":
                yield word
