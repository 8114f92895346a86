"""Compiles the cores (octoroute/*.pyx) and the modules on the road of every request, whose classes are typed
in a .pxd beside them. One switch: OCTOROUTE_BUILD=release|coverage|sanitize|fuzz.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

BUILDS = {
    # -O3 but never -Ofast: the cores must honour NaN and infinity.
    "release": {
        "compile": ["-O3"],
        "link": [],
        "macros": [],
        "directives": {"boundscheck": False, "wraparound": False},
    },
    "coverage": {
        "compile": ["-O0", "-g"],
        "link": [],
        "macros": [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")],
        "directives": {"linetrace": True, "boundscheck": True, "wraparound": False},
    },
    "sanitize": {
        "compile": [
            "-O1",
            "-g",
            "-fno-omit-frame-pointer",
            "-fsanitize=address,undefined",
            "-fno-wrapv",  # Python's own flags define signed overflow, which would hide it from UBSan
            "-fno-sanitize-recover=all",
        ],
        "link": ["-fsanitize=address,undefined"],
        "macros": [],
        "directives": {"boundscheck": True, "wraparound": False},
    },
}

# As for the sanitizers, and libFuzzer learns which blocks were reached (tests/fuzz/counters.c).
BUILDS["fuzz"] = {
    **BUILDS["sanitize"],
    "compile": [*BUILDS["sanitize"]["compile"], "-fsanitize-coverage=trace-pc"],
}
COUNTERS = ["tests/fuzz/counters.c"]

name = os.environ.get("OCTOROUTE_BUILD", "release")
if name not in BUILDS:
    raise SystemExit(f"OCTOROUTE_BUILD is {name!r}; allowed: {', '.join(BUILDS)}")
build = BUILDS[name]

PACKAGE = Path("octoroute")
CORES = sorted(PACKAGE.glob("*.pyx"))
ROAD = sorted(path.with_suffix(".py") for path in PACKAGE.rglob("*.pxd") if path.with_suffix(".py").exists())

# A copy of what points into shared memory, or at a transport, can only do harm.
COMMON = {"language_level": 3, "auto_pickle": False}


def extensions(paths, directives):
    return cythonize(
        [
            Extension(
                ".".join(path.with_suffix("").parts),
                [path.as_posix(), *(COUNTERS if name == "fuzz" else [])],
                extra_compile_args=build["compile"],
                extra_link_args=build["link"],
                define_macros=build["macros"],
            )
            for path in paths
        ],
        # Cython's plugin for coverage looks for the C file beside the extension.
        build_dir=None if name == "coverage" else f"build/cython-{name}",
        compiler_directives=COMMON | directives,
    )


setup(
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=[
        *extensions(CORES, {"cdivision": True, "initializedcheck": False, **build["directives"]}),
        # Python like any other, but for the types in the .pxd, which annotations don't add to.
        *extensions(
            ROAD,
            {"annotation_typing": False, "linetrace": build["directives"].get("linetrace", False)},
        ),
    ],
)
