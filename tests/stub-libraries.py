"""Stands in for the CUDA libraries that torch's libraries name and a CPU never calls.

Run it with the Python of the environment that holds torch. Needs gcc and readelf. Every library that is named as
needed but not there becomes a shared object whose functions answer with an error, in a directory that the loader
searches for torch.
"""

import collections
import pathlib
import re
import subprocess
import sysconfig
import tempfile

TORCH = pathlib.Path(sysconfig.get_paths()["purelib"]) / "torch" / "lib"
FOREIGN_LIBRARY = re.compile(r"lib(cu|nv|nccl)")
FOREIGN_SYMBOL = re.compile(r"(__)?cu|p?nccl|nv")
TELLS_A_TEXT = re.compile(r"Get\w*(Name|String)$|_get_error$")


def read(*arguments):
    return subprocess.run(["readelf", "-W", *arguments], check=True, capture_output=True, text=True).stdout


def survey():
    """(names of missing libraries, {symbol: (kind, version)} that nobody defines, {version: library})"""
    here = sorted(TORCH.glob("*.so*"))
    names = {path.name for path in here}
    needed, wanted, defined, owner = set(), {}, set(), {}
    for path in map(str, here):
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", read("-d", path)):
            if name not in names and FOREIGN_LIBRARY.match(name):
                needed.add(name)
        for line in read("--dyn-syms", path).splitlines():
            fields = line.split()
            if len(fields) < 8 or not fields[0].rstrip(":").isdigit():
                continue
            symbol, _, version = fields[7].partition("@")
            if fields[6] != "UND":
                defined.add(symbol)
            elif FOREIGN_SYMBOL.match(symbol):
                wanted[symbol] = (fields[3], version.lstrip("@"))
        library = None
        for line in read("-V", path).splitlines():
            if found := re.search(r"File: (\S+)", line):
                library = found[1]
            elif library and (found := re.search(r"Name: (\S+)\s+Flags", line)):
                owner[found[1]] = library
    missing = {symbol: of for symbol, of in wanted.items() if symbol not in defined}
    return needed, missing, owner


def definition(symbol, kind):
    if kind == "OBJECT":
        return f"char {symbol}[1 << 16];"
    if TELLS_A_TEXT.search(symbol):
        return f'const char *{symbol}(void) {{ return "there is no CUDA here"; }}'
    # 100 is cudaErrorNoDevice; what the compiler registers at load time must succeed.
    return f"long {symbol}(void) {{ return {0 if symbol.startswith('__cuda') else 100}; }}"


def build(name, symbols, version, directory):
    with tempfile.TemporaryDirectory() as work:
        source, script = pathlib.Path(work, "stub.c"), pathlib.Path(work, "versions")
        source.write_text("\n".join(definition(*symbol) for symbol in symbols) + "\n")
        script.write_text(f"{version or name} {{ global: *; }};\n")
        versions = [f"-Wl,--version-script={script}"] if version else []
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{name}", *versions]
            + ["-o", str(directory / name), str(source)],
            check=True,
        )


def main():
    needed, missing, owner = survey()
    search = re.search(r"\((?:RPATH|RUNPATH)\).*\[(.+)\]", read("-d", str(TORCH / "libtorch_global_deps.so")))[1]
    first = next(path for path in search.split(":") if "nvidia" in path)
    directory = pathlib.Path(first.replace("$ORIGIN", str(TORCH))).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    versioned, anywhere = collections.defaultdict(list), []
    version_of = {}
    for symbol, (kind, version) in sorted(missing.items()):
        if library := owner.get(version):
            versioned[library].append((symbol, kind))
            version_of[library] = version
        else:
            anywhere.append((symbol, kind))
    for name in sorted(needed | set(versioned)):
        build(name, versioned.get(name) or anywhere, version_of.get(name), directory)
    print(f"{len(missing)} symbols of {len(needed | set(versioned))} libraries have stand-ins")


main()
