"""The command `grfsaxs`: analyse files of measured curves, and draw structures that scatter like them."""

import argparse
import json
import math
import multiprocessing
import re
import signal
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

_EPILOG = """
For each curve a picture (.png), a NetCDF file with draws, curve and fit, and a row of results.csv are written. Curves
that are finished are not analysed again with the same arguments. Results of another file of the same name are never
overwritten: give another --out. Exit status: 0 if every result is reliable, 3 if some are not, 1 if a file could not be
analysed, 130 after an interrupt.
"""
_STRUCTURE_EPILOG = """
Written are the analysis with a free spectral density (NAME.free.nc, NAME.free.png), then the structure: as NetCDF
(NAME.structure.nc), as a TIFF stack for ImageJ and others (NAME.structure.tif), and as a picture with its curve over
the measured one (NAME.structure.png). They take the place of those of an earlier call for the same file; results of
another file of the same name are never overwritten: give another --out. Exit status: 0 if the analysis is reliable, 3
if it is not, 1 if it could not be done or no structure could be drawn.
"""


def main(arguments=None):
    """Entry point of ``grfsaxs``."""
    parser = argparse.ArgumentParser(prog="grfsaxs")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--unit", help="unit of q where the file has none: 1/nm or 1/A")
    common.add_argument("--columns", type=lambda text: text.split(","), help="of a text: q,intensity,sigma,dq")
    common.add_argument(
        "--q-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="part of the curve to use [1/nm]"
    )
    common.add_argument(
        "--contrast", type=float, nargs="+", metavar="X",
        help="of the scattering length densities [1e10/cm^2], and its standard deviation; the intensity is in 1/cm "
        "(free spectral density)",
    )  # fmt: skip
    common.add_argument("--relative-error", type=float, help="of the intensity, where the file has none")
    common.add_argument("--seed", type=_whole, default=0)
    common.add_argument(
        "--out", type=Path, default=Path("grfsaxs_results"), help="folder for results (default: %(default)s)"
    )
    p = commands.add_parser(
        "analyse", parents=[common], help="infer structure parameters from measured curves", epilog=_EPILOG
    )
    p.add_argument("files", nargs="+", type=Path, metavar="FILE")
    p.add_argument(
        "--phases", choices=("2", "3", "auto"), default="2", help="auto: as 2 and as 3, the likelier is kept"
    )
    p.add_argument("--spectral-density", default="paper", metavar="NAME", help="paper, power, peak or free")
    p.add_argument(
        "--smoothing-length", type=float, help="of the filter between two cuts [nm] (default: 0, 1 in three phases)"
    )
    p.add_argument("--scaling-parameter", type=float, nargs=2, metavar=("LOW", "HIGH"), help="range of the prior [nm]")
    p.add_argument(
        "--porosity", type=_fraction, nargs="+", metavar="X",
        help="range of the prior, LOW HIGH; with a free spectral density what is known of it, MEAN [SD]",
    )  # fmt: skip
    p.add_argument(
        "--layer-fraction", type=float, nargs=2, metavar=("LOW", "HIGH"), help="range of the prior, 3 phases"
    )
    p.add_argument(
        "--layer-contrast", type=lambda text: tuple(map(float, text.split(","))), metavar="DENSITY[,DENSITY]",
        help="of the layer, where the pore's is 0 and the solid's 1, or its range (default: 0.65)",
    )  # fmt: skip
    p.set_defaults(do=_analyse_files)
    p = commands.add_parser(
        "structure", parents=[common], help="draw a structure that scatters like a measured curve",
        epilog=_STRUCTURE_EPILOG,
    )  # fmt: skip
    p.add_argument("file", type=Path, metavar="FILE")
    p.add_argument("--entry", type=int, metavar="N", help="number of the curve, from 1, in a file of several")
    p.add_argument("--porosity", type=_fraction, nargs="+", metavar="X", help="what is known of it: MEAN [SD]")
    p.add_argument("--size", type=int, default=512, help="voxels along an edge (default: %(default)s)")
    p.add_argument("--voxel-size", type=float, help="[nm] (default: pi/2 over the largest q)")
    p.add_argument("--device", default="cpu", help="cpu or gpu (default: %(default)s)")
    p.set_defaults(do=_draw_structure)
    given = parser.parse_args(arguments)
    if given.q_range and not given.q_range[0] < given.q_range[1]:
        parser.error("argument --q-range: LOW must be below HIGH")
    sys.exit(given.do(given))


def _whole(text):
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more; got {text}")


def _fraction(text):
    with suppress(ValueError):
        if 0 <= float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a fraction, not percent: 0.3 for 30 %; got {text}")


def _analyse_files(given):
    import pandas as pd
    from tqdm import tqdm

    from .files import moved_into_place
    from .tasks import available_cores

    names = ("phases", "spectral_density", "smoothing_length", "q_range", "scaling_parameter", "porosity")
    names += ("layer_fraction", "layer_contrast", "contrast", "relative_error", "seed")
    arguments = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    arguments["phases"] = given.phases if given.phases == "auto" else int(given.phases)
    if len(arguments.get("layer_contrast", ())) == 1:
        arguments["layer_contrast"] = arguments["layer_contrast"][0]
    try:
        _open_folder(given.out)
    except OSError as error:
        return _fail(str(error))
    files = list(dict.fromkeys(given.files))
    common = given.unit, given.columns, arguments, given.out
    rows, failed, stopped = {}, [], False
    # Each on a process of its own, which starts afresh: an interrupt is for this one alone.
    pool = ProcessPoolExecutor(
        min(len(files), available_cores()), multiprocessing.get_context("spawn"), _ignore_interrupts
    )
    running = {pool.submit(_analyse_file, *job, *common): job[0] for job in zip(files, _labels(files), strict=True)}
    try:
        for done in tqdm(as_completed(running), total=len(files), unit="file", disable=len(files) < 2):
            file = running[done]
            try:
                rows[file] = done.result()
            except Exception as error:  # of one file: the others go on
                text = str(error) or repr(error)
                failed.append(text if str(file) in text else f"{file}: {text}")
        pool.shutdown()
    except KeyboardInterrupt:
        stopped = True
        workers = list(pool._processes.values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
    table = pd.DataFrame([row for file in files for row in rows.get(file, [])])
    if len(table):
        target = given.out / "results.csv"
        if target.exists():  # rows of other files stay
            before = pd.read_csv(target)
            table = pd.concat([before[~before["file"].isin(table["file"])], table], ignore_index=True)
        with moved_into_place(target) as temporary:
            table.to_csv(temporary, index=False)
        table = table[table["file"].isin([str(file) for file in rows])]
        columns = ["curve", "reliable"]
        for name in ("scaling_parameter", "porosity", "layer_fraction", "specific_surface"):
            columns += [name, f"{name} sd"] if name in table and table[name].notna().any() else []
        print(table[columns].to_string(index=False, float_format="{:.4g}".format))
        for row in table.fillna("").itertuples():
            if row.warnings:
                print(f"\n{row.curve}: {_in_options(row.warnings, given)}")
        print(f"\nwritten to {given.out}")
    for text in failed:
        _fail(_in_options(text, given))
    if stopped:
        _fail("interrupted; repeat the command for the rest")
        return 130
    return 1 if failed else 0 if table["reliable"].all() else 3


def _draw_structure(given):
    try:
        return _analyse_and_draw(given)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        return _fail(_in_options(str(error), given))


def _analyse_and_draw(given):
    from .grid import Grid
    from .inference.analyse import AnalysisWarning, analyse
    from .inference.drawn_structure import check_device_for

    curve, name, recipe = _chosen_entry(given)
    largest = min(curve.q[-1], (given.q_range or curve.q)[-1])
    grid = Grid(given.size, math.pi / 2 / largest if given.voxel_size is None else given.voxel_size)
    check_device_for(grid, given.device)
    _open_folder(given.out)
    target = given.out / f"{name}.free.nc"
    _check_origin(target, recipe)
    names = ("q_range", "porosity", "contrast", "relative_error", "seed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnalysisWarning)  # told below
        found = analyse(curve, spectral_density="free", **{name: getattr(given, name) for name in names})
    found.to_netcdf(target, recipe=recipe)
    _save_picture(found, target.with_suffix(".png"))
    print(_in_options(str(found), given))
    print(f"\nwritten to {target} and {target.with_suffix('.png').name}\n")
    structure = found.structure(grid, given.seed, given.device)
    target = given.out / f"{name}.structure.nc"
    structure.to_netcdf(target, recipe=recipe)
    structure.to_tiff(target.with_suffix(".tif"))
    _save_picture(structure, target.with_suffix(".png"))
    print(structure)
    for text in structure.warnings:
        if text not in found.warnings:
            print(f"- {text}")
    print(f"\nwritten to {target}, {target.with_suffix('.tif').name} and {target.with_suffix('.png').name}")
    return 0 if found.reliable else 3


def _chosen_entry(given):
    """The curve that a command is for, the name of its results, and its recipe."""
    from .measurement.reading import read_curves

    curves = read_curves(given.file, given.unit, columns=given.columns)
    number = 1 if given.entry is None and len(curves) == 1 else given.entry
    if number not in range(1, len(curves) + 1):
        known = ", ".join(f"{number} ({curve.name})" for number, curve in enumerate(curves, 1))
        raise ValueError(f"{given.file} holds the curves {known}: choose one by entry=")
    names = "q_range", "porosity", "contrast", "relative_error", "seed", "size", "voxel_size", "device"
    arguments = {name: getattr(given, name) for name in names}
    recipe = _recipe(given.file, number, given.unit, given.columns, arguments)
    return curves[number - 1], _name(given.file.stem, number, curves), recipe


def _fail(text):
    print(f"grfsaxs: {text}", file=sys.stderr)
    return 1


def _in_options(text, given):
    """A message of the package in the words of a command: `--q-range` where it says `q_range=` or `q_range must`."""
    names = "|".join(vars(given).keys() - {"command", "do", "file", "files"})

    def option(found):
        name, several, one = found.groups()
        value = "" if several is None else " " + re.sub("[' ]", "", several)
        return f"--{name.replace('_', '-')}{value}" + " " * bool(one)

    return re.sub(rf"\b({names})(?:=\(([^)]*)\)|(=(?=[\w'\"])| (?=must\b))|=)", option, text)


def _open_folder(path):
    """Make a folder if it is not there; OSError if nothing can be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {path}: {error.strerror}") from None


def _ignore_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _labels(files):
    """A name for the results of each file: its stem, with its folder or a number where others have the same."""
    labels = [file.stem for file in files]
    labels = [
        f"{file.resolve().parent.name}_{file.name}" if labels.count(file.stem) > 1 else file.stem for file in files
    ]
    return [
        f"{label}_{labels[: i + 1].count(label)}" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]


def _analyse_file(file, label, unit, columns, arguments, out):
    """Rows of the table for the curves of a file; those that are finished are read."""
    from .inference.analyse import AnalysisWarning, analyse
    from .measurement.reading import read_curves

    curves = read_curves(file, unit, columns=columns)
    rows = []
    for number, curve in enumerate(curves, 1):
        name = _name(label, number, curves)
        target, picture = out / f"{name}.nc", out / f"{name}.png"
        recipe = _recipe(file, number, unit, columns, arguments)
        _check_origin(target, recipe)
        row = _finished(target, recipe) if picture.exists() else None
        if row is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AnalysisWarning)  # a table of many tells of each
                found = analyse(curve, **arguments)
            _save_picture(found, picture)
            row = {"file": str(file)} | found.summary
            found.to_netcdf(target, recipe=recipe, row=json.dumps(row, default=float))
        rows.append(row)
    return rows


def _name(label, number, curves):
    """What the results of one curve of a file are called."""
    return label if len(curves) == 1 else f"{label}.entry{number}"


def _recipe(file, number, unit, columns, arguments):
    """What a result is made of, as text: version, file, its content, number of the curve, arguments."""
    from .files import package_version, sha256

    recipe = [package_version(), str(file.resolve()), sha256(file), number, unit, columns, arguments]
    return json.dumps(recipe, sort_keys=True)


def _attributes(path):
    """Attributes of a NetCDF file; an empty dict if it cannot be read."""
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            return {name: file.getncattr(name) for name in file.ncattrs()}
    except OSError:
        return {}


def _check_origin(path, recipe):
    """Raise if there is a file that is no result of this measurement."""
    if not path.exists():
        return
    _, file, content, *_ = json.loads(recipe)
    _, other, other_content, *_ = json.loads(_attributes(path).get("recipe", '["", "something else", ""]'))
    if file != other and content != other_content:
        raise ValueError(f"{path} is there, a result of {other}: give another folder by out=")


def _finished(path, recipe):
    """The row of the table that a result has, if it was made by this recipe."""
    attributes = _attributes(path)
    return json.loads(attributes["row"]) if attributes.get("recipe") == recipe else None


def _save_picture(found, path):
    from .files import moved_into_place

    with moved_into_place(path) as temporary:
        found.plot().savefig(temporary, dpi=150, format="png")


if __name__ == "__main__":
    main()
