"""Build `pyg_fullgraph._C`: C++17 kernels behind pybind11, compiled by ninja, without torch.

`PYG_FULLGRAPH_BUILD` chooses what happens:
    unset   build the extension; where that fails, say why and install without it (the reference operators serve)
    python  do not build the extension
    cpp     build it, and fail where that fails

pip shows nothing of a build that succeeds, so what a user should know goes to the terminal as well, where there is one.
A wheel without the extension is tagged py3-none-any.

The kernel files are compiled once per instruction set with that set's flags; the binary picks one at run time, so
it runs on every processor of its architecture. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).parent.resolve()
BUILD_CHOICES = ("", "cpp", "python")
COMMON_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
    "-Wno-ignored-attributes",
]
# The kernels are written in vectors: -O2 gives the code of -O3 here.
KERNEL_FLAGS = ["-O2", "-fno-trapping-math", "-Wno-maybe-uninitialized"]
X86_ISAS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c",
        "-mprefer-vector-width=512",
    ],
}  # fmt: skip
OTHER_ISAS: dict[str, list[str]] = {"baseline": []}


def instruction_sets() -> dict[str, list[str]]:
    """The instruction sets to compile the kernels for, with their flags; x86 has three, others one."""
    machine = os.environ.get("PYG_FULLGRAPH_MACHINE", platform.machine()).lower()
    return X86_ISAS if machine in ("x86_64", "amd64") else OTHER_ISAS


def compiler() -> str:
    """The C++ compiler: `$CXX`, else the first of c++, g++, clang++ on the path."""
    named = os.environ.get("CXX")
    candidates = [named] if named else ["c++", "g++", "clang++"]
    for name in candidates:
        if shutil.which(shlex.split(name)[0]):
            return name
    raise RuntimeError(f"no C++ compiler found (tried {', '.join(candidates)}): install g++ or set CXX")


def ninja_program() -> str:
    """The ninja executable: the one of the `ninja` wheel, else the one on the path."""
    try:
        import ninja
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            raise RuntimeError("ninja was not found: `pip install ninja`") from None
        return found
    return str(Path(ninja.BIN_DIR) / "ninja")


def include_flags() -> list[str]:
    """Where Python's and pybind11's headers lie."""
    try:
        import pybind11
    except ImportError:
        raise RuntimeError("pybind11 was not found: `pip install pybind11`") from None
    folders = [pybind11.get_include(), sysconfig.get_path("include"), str(ROOT / "csrc")]
    return [flag for folder in folders for flag in ("-isystem" if folder != folders[-1] else "-I", folder)]


def ninja_file(objects: Path, target: Path) -> str:
    """The text of build.ninja: plain files once, `csrc/cpu/kernels/*.cpp` once per instruction set."""
    compile_ = f"{compiler()} {shlex.join(COMMON_FLAGS + include_flags())} {os.environ.get('CXXFLAGS', '')}"
    lines = [
        "ninja_required_version = 1.5",
        f"rule compile\n  command = {escape(compile_)} $flags -MMD -MF $out.d -c $in -o $out\n"
        "  depfile = $out.d\n  deps = gcc\n  description = compile $out",
        f"rule link\n  command = {escape(compiler())} -shared -pthread {os.environ.get('LDFLAGS', '')} "
        "$in -ldl -o $out\n  description = link $out",
    ]
    isas = instruction_sets()
    known = " ".join(f"-DFG_HAVE_{isa.upper()}" for isa in isas)
    built: list[str] = []

    def add(source: Path, name: str, flags: str) -> None:
        built.append(escape_path(objects / f"{name}.o"))
        lines.append(f"build {built[-1]}: compile {escape_path(source)}\n  flags = {escape(flags)}")

    for source in sorted((ROOT / "csrc").glob("*.cpp")) + sorted((ROOT / "csrc/cpu").glob("*.cpp")):
        add(source, source.stem, known)
    for isa, flags in isas.items():
        for source in sorted((ROOT / "csrc/cpu/kernels").glob("*.cpp")):
            add(source, f"{source.stem}_{isa}", shlex.join([*KERNEL_FLAGS, *flags, f"-DFG_ISA={isa}"]))
    lines.append(f"build {escape_path(target)}: link {' '.join(built)}\ndefault {escape_path(target)}")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape a command for ninja."""
    return text.replace("$", "$$")


def escape_path(path: Path) -> str:
    """Escape a path for ninja's build lines."""
    return re.sub(r"([$: ])", r"$\1", str(path))


class NinjaBuild(build_ext):
    """Compile the extension with ninja, aside, and move it into place whole (others may be running the old one)."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension, or say why there is none."""
        required = os.environ.get("PYG_FULLGRAPH_BUILD", "") == "cpp"
        try:
            self.compile(ext)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            if required:
                raise SystemExit(f"error: PYG_FULLGRAPH_BUILD=cpp, but the extension was not built: {error}") from error
            self.distribution.failed = True
            tell(
                f"warning: pyg_fullgraph is installed WITHOUT its C++ kernels: {error}\n"
                "         It works, but slowly, on the reference operators. Install a C++17 compiler (g++ or clang++) "
                "and install again\n         (with --no-cache-dir --force-reinstall)."
            )

    def compile(self, ext: Extension) -> None:
        """Write build.ninja, run it, and put the library where setuptools expects it."""
        objects = Path(self.build_temp).resolve() / "pyg_fullgraph_C"
        objects.mkdir(parents=True, exist_ok=True)
        library = objects / Path(self.get_ext_filename(ext.name)).name
        (objects / "build.ninja").write_text(ninja_file(objects, library))
        tell(
            "pyg_fullgraph: compiling the C++ kernels, which takes 2 to 3 minutes of processor time; "
            "PYG_FULLGRAPH_BUILD=python installs without them"
        )
        jobs = os.environ.get("MAX_JOBS")
        subprocess.run(
            [ninja_program(), "-C", str(objects), *(["-j", jobs] if jobs else [])], check=True, stdout=sys.stderr
        )
        place(library, Path(self.get_ext_fullpath(ext.name)))

    def copy_extensions_to_source(self) -> None:
        """For in-place and editable builds: as setuptools does, but whole, and only what was built."""
        for ext in self.extensions:
            library = Path(self.get_ext_filename(ext.name))
            if (built := Path(self.build_lib) / library).exists():
                place(built, ROOT / library)

    def get_outputs(self) -> list[str]:
        """The files this command made: none where the build failed and that was allowed."""
        return [path for path in super().get_outputs() if Path(path).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        """For editable installs: the same, built file to source file."""
        return {built: source for built, source in super().get_output_mapping().items() if Path(built).exists()}


def place(source: Path, target: Path) -> None:
    """Copy a file so that the target is at every moment the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=".building-")
    os.close(handle)
    shutil.copyfile(source, aside)
    os.chmod(aside, 0o755)
    os.replace(aside, target)


def extensions() -> list[Extension]:
    """The extension modules to build, none where the user asked for none."""
    choice = os.environ.get("PYG_FULLGRAPH_BUILD", "")
    if choice not in BUILD_CHOICES:
        raise SystemExit(f"error: PYG_FULLGRAPH_BUILD={choice!r}: valid values are cpp, python, or unset")
    return [] if choice == "python" else [Extension("pyg_fullgraph._C", sources=[])]


def tell(text: str) -> None:
    """Say it on stderr, and where that is no terminal (pip reads it) on the terminal that the process has, if any."""
    print(text, file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write(f"\n{text}\n")


class BinaryDistribution(Distribution):
    """A distribution whose wheel is tagged for this platform exactly when it holds the extension."""

    failed = False

    def has_ext_modules(self) -> bool:
        """Whether the wheel depends on the platform."""
        return bool(self.ext_modules) and not self.failed


class Wheel(bdist_wheel):
    """Build first: only then it is known whether the wheel depends on the platform."""

    def run(self) -> None:
        """Build the wheel."""
        if not self.skip_build:
            self.run_command("build")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


def description() -> str:
    """README.md for a package index, where links to other files of the repository lead nowhere: their names instead."""

    def named(link: re.Match[str]) -> str:
        return link["text"] if link["target"] in link["text"] else f"{link['text']} ({link['target']})"

    return re.sub(
        r"(?<!!)\[(?P<text>[^\]]+)\]\((?!\w+:|#)(?P<target>[^)\s]+)\)", named, (ROOT / "README.md").read_text("utf-8")
    )


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": NinjaBuild, "bdist_wheel": Wheel},
    distclass=BinaryDistribution,
    long_description=description(),
    long_description_content_type="text/markdown",
)
