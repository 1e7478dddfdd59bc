"""Reading measured curves: canSAS XML, NXcanSAS, .pdh, and columns of text.

A reader takes what a file says and nothing else: a missing uncertainty is None, and a unit that is not in the file must
be given. Files are only read: no entity of an XML file is expanded, and nothing in a file is executed.
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from .curve import Curve, check_unit, find_units

COLUMNS = ("q", "intensity", "sigma", "dq")
"""Names of columns, in the order in which a file without names is read."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?")
_MISSING = re.compile(r"|[-+]?nan|n/?a|null|none|-+|\*+|[-+]?inf|[-+]?1\.#\w+", re.IGNORECASE)
# What a column is called in the last line above the numbers.
_HEADINGS = (
    ("dq", r"(d|sigma|s|sig|delta|res\w*)[ _]?q(dev)?|qdev|qsig\w*|q[ _]?(res|err|std)\w*|resolution|dx"),
    (
        "sigma",
        r"(d|sigma|s|sig|delta|e|err|error|u|std|sd)[ _]?(i|int|intensity|y)?|i[ _]?(dev|err\w*|sd|sigma|std|unc\w*)"
        r"|std.*|err[^%]*|esd|unc.*|\+/?-|s\.d\.|rms|noise",
    ),
    ("q", r"q|q[ _-]?(vector|mean|value|a|å|nm|inv|1).*|s?_?vector|x"),
    ("intensity", r"i|i\(q\)|int\w*|cross.*|counts?|abs.*|y"),
)
_XML_STARTS = b"<?xml", b"<SASroot", b"<!DOCTYPE", b"<!ENTITY", b"<html"


def read_curve(path, unit=None, *, columns=None, entry=None):
    """Read a measured curve from a file.

    Parameters
    ----------
    path : path-like
        canSAS XML (.xml), NXcanSAS (.h5, .hdf, .hdf5, .nxs), .pdh, or text of two to six columns (.dat, .txt, .csv,
        .abs, ...).
    unit : str, optional
        Unit of q, "1/nm" or "1/A". Required where the file has none; elsewhere it takes the place of the file's, and
        the curve notes that.
    columns : sequence of str, optional
        What the columns of a text hold: "q", "intensity", "sigma", "dq", or "" for one to leave out.
    entry : str, optional
        Name of the entry to read from a file of several, see `read_curves`.

    Returns
    -------
    Curve

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it cannot be read without a guess. The message names the file and the remedy.
    """
    curves = read_curves(path, unit, columns=columns)
    names = [curve.name for curve in curves]
    if entry is not None:
        curves = [curve for curve in curves if curve.name == entry]
    if len(curves) != 1:
        raise ValueError(f"{path} holds {', '.join(map(repr, names))}: choose one by entry=, or take read_curves")
    return curves[0]


def read_curves(path, unit=None, *, columns=None):
    """Read every curve of a file; parameters and errors are those of `read_curve`.

    Returns
    -------
    list of Curve
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file")
    if unit is not None:
        unit = check_unit(unit)
    if columns is not None:
        wanted = [name for name in columns if name]
        if set(wanted) - set(COLUMNS) or len(set(wanted)) < len(wanted) or not {"q", "intensity"} <= set(wanted):
            raise ValueError(f"columns must name q and intensity, and may name sigma and dq; got {list(columns)}")
    start = path.open("rb").read(2048)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        start = start.decode("utf-16", "ignore").encode()
    if start.startswith((b"\x89HDF\r\n\x1a\n", b"CDF")):
        found = _read_nexus(path)
    elif start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_XML_STARTS):
        found = _read_xml(path)
    else:
        return [_read_text(path, unit, columns)]
    if not found:
        raise ValueError(f"{path} holds no curve that this package can find; write its columns to a text file")
    return [_curve(path, unit, *one) for one in found]


def _curve(path, unit, name, in_file, values, slit_length=None, notes=()):
    """A Curve of what a file says, with the unit that the file or the caller names."""
    notes = list(notes)
    if in_file is None and unit is None:
        raise ValueError(f"{path} does not say the unit of q: give it, as in unit='1/nm' or unit='1/A'")
    if unit is not None and in_file is not None and unit != in_file:
        notes.append(f"the file says that q is in {in_file}, and unit={unit!r} contradicts it")
    try:
        return Curve(**values, unit=unit or in_file, name=name, slit_length=slit_length, notes=notes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_text(path, unit, columns):
    lines = _decoded(path).splitlines()
    pdh = path.suffix.lower() == ".pdh"
    first, values = _pdh_block(path, lines) if pdh else _block(path, lines, 6 if columns is None else len(columns))
    header, notes = lines[:first], []
    if pdh:
        columns = columns or COLUMNS[:3]
    elif columns is None:
        columns = _name_columns(path, header, values, notes)
    if any(columns[values.shape[1] :]):
        raise ValueError(f"{path} has {values.shape[1]} columns; got columns={list(columns)}")
    named = {name: values[:, i] for i, name in enumerate(columns[: values.shape[1]]) if name}
    found = find_units("\n".join(header))
    if len(found) > 1 and unit is None:
        raise ValueError(f"{path} names both 1/nm and 1/A above its numbers: say which is meant by unit=")
    in_file = found.pop() if len(found) == 1 else None
    if pdh and in_file is None:
        in_file = "1/nm"
        if unit is None:
            notes.append("q in nm^-1, as .pdh files have it")
    slit_length = None
    if "dq" in named:
        dq = named["dq"]
        if (dq < 0).all() and np.ptp(dq) < 1e-3 * abs(dq[0]):  # how slit-smeared files say it
            slit_length = -dq[0]
            del named["dq"]
            notes.append(f"column dq is the slit length, {slit_length:g} in the unit of q")
        elif np.nanmedian(dq) > np.nanmedian(named["q"]):
            raise ValueError(
                f"{path}: column {list(columns).index('dq') + 1} is larger than q and cannot be its "
                "resolution; say what the columns are, as in columns=('q', 'intensity', '', 'sigma')"
            )
    if "sigma" in named and (named["sigma"] == -1).all():  # how some programs say that there is none
        del named["sigma"]
    return _curve(path, unit, path.stem, in_file, named, slit_length, notes)


def _pdh_block(path, lines):
    """Number of the first line of a .pdh file's table, and the table."""
    rows = [_numbers(line) for line in lines]
    try:
        count = int(rows[2][0])
    except (IndexError, TypeError, ValueError):
        raise ValueError(f"{path}, line 3: a .pdh file has its number of points there") from None
    table = rows[5 : 5 + count]
    if len(table) < count or len({len(row) if row else 0 for row in table}) != 1 or not table[0]:
        raise ValueError(f"{path}: line 3 promises {count} rows of equally many numbers from line 6 on")
    return 5, np.array(table)


def _name_columns(path, header, values, notes):
    """Names of the columns by the header, or by their order where it has none."""
    count = values.shape[1]
    found = _headings(header, count)
    if found is not None:
        names, words = found
        if "q" not in names or "intensity" not in names:
            raise ValueError(
                f"{path}: of the columns {', '.join(words)} none is called q, or none intensity; name them by columns="
            )
        notes += [f"column {word!r} is not used" for name, word in zip(names, words, strict=True) if not name]
        return names
    if count > 2 and (np.diff(values[:, 0]) == 1).all():
        raise ValueError(f"{path}: column 1 counts the rows; say what the columns are by columns=")
    notes += [f"column {i + 1} is not used" for i in range(len(COLUMNS), count)]
    return COLUMNS[:count]


def _decoded(path):
    content = path.read_bytes()
    if b"\0" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is a binary file that this package does not read; export columns of text")
    for encoding in ("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig", "latin-1"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 decodes anything")


def _tokens(line):
    """The words of a line of a table, with decimal points; None if points and commas are mixed."""
    line = re.sub(r"(?<=[\d\s])[#!].*", "", line).strip()
    if ";" in line or "\t" in line:
        words, comma = re.split(r"\s*;\s*" if ";" in line else r" *\t *", line), True
        words = [word for part in words for word in (part.split() if " " in part else [part])]
    elif re.search(r",\s|,,|,$", line) or not re.search(r"\s", line):
        words, comma = re.split(r"\s*,\s*", line), False
    else:
        words, comma = line.split(), True
    words = [word.strip("\"'") for word in words]
    if comma and any("," in word for word in words):
        if any("." in word for word in words if "#" not in word):
            return None
        words = [word.replace(",", ".") for word in words]
    return words


def _numbers(line):
    """The numbers of a line, NaN where one is missing, or None if it holds anything else."""
    words = _tokens(line)
    if not words or not any(_NUMBER.fullmatch(word) for word in words):
        return None
    if not all(_NUMBER.fullmatch(word) or _MISSING.fullmatch(word) for word in words):
        return None
    return [float(word.lower().replace("d", "e")) if _NUMBER.fullmatch(word) else np.nan for word in words]


def _block(path, lines, most):
    """Number of the first line of the longest table of two columns or more, and the table.

    Empty lines and comments inside are passed over. A line that might belong to the table and cannot be read, and rows
    that go on behind one, are errors: nothing is lost without a word.
    """
    rows = {i: _numbers(line) for i, line in enumerate(lines) if line.strip() and line.strip()[0] not in "#!%"}
    runs, width = [], 0
    for i, row in rows.items():
        if row is None or len(row) < 2:
            width = 0
        elif len(row) == width:
            runs[-1].append(i)
        else:
            runs.append([i])
            width = len(row)
    best = max(runs, key=len, default=[])
    if len(best) < 5:
        raise ValueError(f"{path} holds no table of five rows or more with two to six numbers each")
    width, places = len(rows[best[0]]), list(rows)
    if width > most:
        raise ValueError(f"{path}, line {best[0] + 1}: {width} columns; name those to read by columns=")
    ends = places.index(best[0]) - 1, places.index(best[-1]) + 1
    beside = {places[i] for i in ends if 0 <= i < len(places)}
    odd = [i for i in places if i not in best and _might_belong(lines[i], rows[i], width, i in beside)]
    if odd:
        line = next((i for i in odd if rows[i] is None), odd[0])
        raise ValueError(
            f"{path}, line {line + 1}: {lines[line].strip()!r} is no row of the table beside it; mend the file"
        )
    table = np.array([rows[i] for i in best])
    return best[0], table[:, ~np.isnan(table).all(axis=0)]


def _might_belong(line, row, width, beside):
    """Whether a line outside a table looks like one of its rows, damaged or cut off from it."""
    if row is not None and len(row) == width:
        return True
    words = _tokens(line) or line.split()
    numbers = sum(bool(re.fullmatch(r"[-+]?[\d.,]+([eEdD]?[-+]?\d+)?", word)) for word in words)
    return (row is None or beside) and abs(len(words) - width) <= 1 and numbers >= max(2, width - 1)


def _headings(header, count):
    """Names of the columns and their words, if one of the last lines of a header has as many; or None."""
    for line in reversed([line.strip(" \t#%;,|!/") for line in header if line.strip()][-3:]):
        bare = re.sub(r"\s*[\[(][^\])]*[\])]", "", line)  # without units
        for separator in (r"\s*[|]\s*", r"\s*[;\t,]\s*", r"\s{2,}", r"\s+"):
            words = [re.sub(r"(?<=q)[_/].*", "", word.strip(" \"'<>")) for word in re.split(separator, bare)]
            words = words[-count:] if "|" in separator else words  # a sentence may stand before the first bar
            names = [
                next((name for name, pattern in _HEADINGS if re.fullmatch(pattern, word, re.IGNORECASE)), "")
                for word in words
            ]
            if len(words) == count and len(set(names) & {"q", "intensity", "sigma"}) >= min(2, count):
                return [name if name not in names[:i] else "" for i, name in enumerate(names)], words
    return None


def _read_xml(path):
    """(name, unit, columns) of every SASdata of a canSAS file."""
    content = path.read_bytes()
    if b"<!ENTITY" in content or b"<!DOCTYPE" in content:
        raise ValueError(f"{path} declares a document type or entities, which are not expanded: remove them")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no well-formed XML: {error}") from None

    def tag(element):
        return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""

    found = []
    for entry in (element for element in root.iter() if tag(element) == "SASentry"):
        title = next((one.text for one in entry if tag(one) == "Title" and one.text), None)
        for data in (element for element in entry.iter() if tag(element) == "SASdata"):
            rows, units, notes = [], {"Q": set(), "Qdev": set()}, []
            for row in (element for element in data if tag(element) == "Idata"):
                cells = {tag(cell): cell for cell in row}
                for name in units.keys() & cells.keys():
                    units[name].add(cells[name].get("unit", ""))
                rows.append({name: _number(path, cells[name]) for name in _XML if name in cells})
                if not notes and cells.keys() & {"dQw", "dQl"}:
                    notes.append("the slit widths dQw and dQl of the file are not used: give slit_length= to a Curve")
            if rows:
                name = data.get("name") or entry.get("name") or title or path.stem
                unit, of_dq = (_one_unit(path, units[key]) for key in ("Q", "Qdev"))
                if of_dq not in (None, unit):
                    raise ValueError(f"{path}: Q is in {unit} and Qdev in {of_dq}; write both in one unit")
                found.append((name.strip(), unit, _columns(path, rows), None, notes))
    return _distinct(found)


_XML = {"Q": "q", "I": "intensity", "Idev": "sigma", "Qdev": "dq"}


def _number(path, cell):
    try:
        return float(cell.text)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {cell.text!r} in {cell.tag.rpartition('}')[2]} is no number") from None


def _columns(path, rows):
    if not all({"Q", "I"} <= set(row) for row in rows):
        raise ValueError(f"{path}: every Idata needs Q and I")
    there = set().union(*rows)
    return {_XML[name]: [row.get(name, np.nan) for row in rows] for name in _XML if name in there}


def _one_unit(path, units):
    """The unit of q for what a file calls it; None if it says nothing."""
    names = {unit for unit in units if unit and unit.strip()}
    if not names:
        return None
    try:
        found = {check_unit(name) for name in names}
    except ValueError:
        found = set()
    if len(found) != 1:
        raise ValueError(f"{path}: q is in {' and '.join(sorted(names))}, which is neither 1/nm nor 1/A")
    return found.pop()


def _read_nexus(path):
    """(name, unit, columns) of every SASdata group of an NXcanSAS file."""
    import netCDF4

    try:
        file = netCDF4.Dataset(path)
    except OSError as error:
        raise ValueError(f"{path} is damaged, or HDF5 of a kind that cannot be read ({error})") from None
    with file:
        file.set_auto_mask(False)
        return _distinct([_nexus_data(path, group) for group in _groups(file) if _class(group) == "SASdata"])


def _groups(group):
    for child in group.groups.values():
        yield child
        yield from _groups(child)


def _class(group):
    return str(getattr(group, "canSAS_class", ""))


def _nexus_data(path, group):
    there, notes = group.variables, []
    if "Q" not in there or "I" not in there:
        raise ValueError(f"{path}: {group.path} has {', '.join(there)}, and needs Q and I")
    if there["Q"].ndim != 1 or there["I"].shape != there["Q"].shape:
        raise ValueError(f"{path}: {group.path} needs Q and I of one dimension; images have to be averaged first")
    names = {"q": "Q", "intensity": "I"}
    for column, of, attribute in (("sigma", "I", "uncertainties"), ("dq", "Q", "resolutions")):
        named = getattr(there[of], attribute, getattr(group, f"{of}_{attribute}", f"{of}dev"))
        several = (
            re.split(r"[,\s]+", named.strip()) if isinstance(named, str) else [str(name) for name in np.ravel(named)]
        )
        if len(several) == 1 and several[0] in there:
            names[column] = several[0]
        elif len(several) > 1 or several[0] != f"{of}dev":
            notes.append(f"{attribute} {', '.join(several)} of the file are not used")
    values = {column: np.asarray(there[name][:], dtype=np.float64) for column, name in names.items()}
    unit = _one_unit(path, {str(getattr(there["Q"], "units", ""))})
    of_dq = _one_unit(path, {str(getattr(there[names["dq"]], "units", ""))}) if "dq" in names else None
    if of_dq not in (None, unit):
        raise ValueError(f"{path}: {group.path} has Q in {unit} and its resolution in {of_dq}")
    return group.parent.name if group.parent.name != "/" else path.stem, unit, values, None, notes


def _distinct(found):
    """The same, with numbers behind names that occur twice."""
    names = [one[0] for one in found]
    return [
        (f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name, *rest)
        for i, (name, *rest) in enumerate(found)
    ]
