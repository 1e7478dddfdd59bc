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

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?|[-+]?(nan|inf)", re.IGNORECASE)
# What a column is called in the last line above the numbers.
_HEADINGS = (
    ("dq", r"(d|sigma|s|sig|delta|res\w*)[ _]?q(dev)?|qdev|qsig\w*|q[ _]?(res|err|std)\w*|resolution"),
    (
        "sigma",
        r"(d|sigma|s|sig|delta|e|err)[ _]?(i|int|intensity)(\(q\))?|i(dev|err|sd|sigma)|std.*|err.*|sigma|esd|unc.*",
    ),
    ("q", r"q|s?_?vector|<?q>?|q[ _]?(a|å|nm|inv|1).*"),
    ("intensity", r"i|i\(q\)|int\w*|cross.*|counts?|abs.*"),
)


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
    if start.startswith((b"\x89HDF\r\n\x1a\n", b"CDF")):
        found = _read_nexus(path)
    elif start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
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
    rows = [_numbers(line) for line in lines]
    pdh = path.suffix.lower() == ".pdh"
    first, last = (5, None) if pdh else _block(path, rows)
    if pdh:
        try:
            count = int(rows[2][0])
        except (IndexError, TypeError, ValueError):
            raise ValueError(f"{path}, line 3: a .pdh file has its number of points there") from None
        last = first + count
        widths = {len(row) if row else 0 for row in rows[first:last]}
        if len(rows) < last or len(widths) != 1:
            raise ValueError(f"{path}: line 3 promises {count} rows of equally many numbers from line 6 on")
    values = np.array(rows[first:last], dtype=np.float64)
    header = lines[:first]
    if columns is None:
        columns = _headings(header, values.shape[1]) or COLUMNS[: values.shape[1]]
        if pdh:
            columns = COLUMNS[:3]
    if any(columns[values.shape[1] :]):
        raise ValueError(f"{path} has {values.shape[1]} columns; got columns={list(columns)}")
    named = {name: values[:, i] for i, name in enumerate(columns[: values.shape[1]]) if name}
    found = find_units("\n".join(header))
    if len(found) > 1 and unit is None:
        raise ValueError(f"{path} names both 1/nm and 1/A above its numbers: say which is meant by unit=")
    in_file = found.pop() if len(found) == 1 else "1/nm" if pdh else None
    notes = ["q in nm^-1, as .pdh files have it"] if pdh and unit is None else []
    slit_length = None
    if "dq" in named:
        dq = named["dq"]
        if (dq < 0).all() and np.ptp(dq) < 1e-3 * abs(dq[0]):  # how slit-smeared files say it
            slit_length = -dq[0]
            del named["dq"]
            notes.append(f"column dq is the slit length, {slit_length:g} in the unit of q")
        elif np.median(dq) > np.median(named["q"]):
            raise ValueError(
                f"{path}: column {list(columns).index('dq') + 1} is larger than q and cannot be its "
                "resolution; say what the columns are, as in columns=('q', 'intensity', '', 'sigma')"
            )
    return _curve(path, unit, path.stem, in_file, named, slit_length, notes)


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


def _numbers(line):
    """The numbers of a line, or None if it holds anything else."""
    line = line.strip().rstrip(";,")
    if ";" in line or "\t" in line:
        tokens = re.split(r"\s*[;\t]\s*|\s+", line)
        decimal_comma = True
    elif re.search(r",\s", line) or not re.search(r"\s", line):
        tokens, decimal_comma = re.split(r"\s*,\s*", line), False
    else:
        tokens, decimal_comma = line.split(), True
    if decimal_comma:
        tokens = [token.replace(",", ".") for token in tokens]
    if not tokens or not all(_NUMBER.fullmatch(token) for token in tokens):
        return None
    return [
        float(re.sub("[dD]", "e", token)) if token[-1:].isdigit() or "." in token else float(token) for token in tokens
    ]


def _block(path, rows):
    """First and last line (exclusive) of the longest run of rows of two to six numbers."""
    best, start = (0, 0), 0
    for i in range(1, len(rows) + 1):
        same = i < len(rows) and rows[i] is not None and rows[start] is not None and len(rows[i]) == len(rows[start])
        if not same:
            if rows[start] is not None and 2 <= len(rows[start]) and i - start > best[1] - best[0]:
                best = (start, i)
            start = i
    if best[1] - best[0] < 5:
        raise ValueError(f"{path} holds no block of five rows or more with two to six numbers each")
    if len(rows[best[0]]) > 6:
        raise ValueError(f"{path}, line {best[0] + 1}: {len(rows[best[0]])} columns; name those to read by columns=")
    rest = sum(row is not None and len(row) == len(rows[best[0]]) for row in rows[best[1] :])
    if rest > 1:
        line = next(i for i in range(best[1], len(rows)) if rows[i] is None or len(rows[i]) != len(rows[best[0]])) + 1
        raise ValueError(f"{path}, line {line}: the rows of numbers break off here and go on later; mend the file")
    return best


def _headings(header, count):
    """Names of the columns, if the last lines of a header name as many as there are, q and intensity among them."""
    for line in reversed([line.strip(" \t#%;,|!/") for line in header if line.strip()][-3:]):
        for separator in (r"\s*[|;\t,]\s*", r"\s{2,}", r"\s+"):
            words = [
                re.sub(r"\s*[\[(].*?[\])]\s*$|(?<=q)_.*", "", word.strip(" \"'")) for word in re.split(separator, line)
            ]
            words = words[-count:]
            names = [
                next((name for name, pattern in _HEADINGS if re.fullmatch(pattern, word, re.IGNORECASE)), "")
                for word in words
            ]
            if len(words) == count and {"q", "intensity"} <= set(names):
                return [name if name not in names[:i] else "" for i, name in enumerate(names)]
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
            rows, units = [], set()
            for row in (element for element in data if tag(element) == "Idata"):
                cells = {tag(cell): cell for cell in row}
                if "Q" in cells:
                    units.add(cells["Q"].get("unit", ""))
                rows.append({name: _number(path, cells[name]) for name in _XML if name in cells})
            if rows:
                name = data.get("name") or entry.get("name") or title or path.stem
                found.append((name.strip(), _one_unit(path, units), _columns(path, rows)))
    return _distinct(found)


_XML = {"Q": "q", "I": "intensity", "Idev": "sigma", "Qdev": "dq"}


def _number(path, cell):
    try:
        return float(cell.text)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {cell.text!r} in {cell.tag.rpartition('}')[2]} is no number") from None


def _columns(path, rows):
    there = set.intersection(*(set(row) for row in rows))
    if not {"Q", "I"} <= there:
        raise ValueError(f"{path}: every Idata needs Q and I")
    return {_XML[name]: [row[name] for row in rows] for name in _XML if name in there}


def _one_unit(path, units):
    """The unit of q for what a file calls it; None if it says nothing."""
    names = {unit for unit in units if unit and unit.strip()}
    if not names:
        return None
    found = set().union(*(find_units(name) for name in names))
    if len(found) != 1 or any(not find_units(name) for name in names):
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
    there = group.variables
    if "Q" not in there or "I" not in there or there["Q"].ndim != 1 or there["I"].shape != there["Q"].shape:
        raise ValueError(f"{path}: {group.path} needs Q and I of one dimension; images have to be averaged first")
    names = {"q": "Q", "intensity": "I"}
    for column, of, attribute in (("sigma", "I", "uncertainties"), ("dq", "Q", "resolutions")):
        name = str(getattr(there[of], attribute, getattr(group, f"{of}_{attribute}", f"{of}dev")))
        if name in there:
            names[column] = name
    values = {column: np.asarray(there[name][:], dtype=np.float64) for column, name in names.items()}
    unit = _one_unit(path, {str(getattr(there["Q"], "units", ""))})
    factors = {
        "q": unit,
        "dq": _one_unit(path, {str(getattr(there[names["dq"]], "units", ""))}) if "dq" in names else unit,
    }
    if factors["dq"] not in (unit, None):
        raise ValueError(f"{path}: {group.path} has Q in {unit} and its resolution in {factors['dq']}")
    return group.parent.name if group.parent.name != "/" else path.stem, unit, values


def _distinct(found):
    """The same, with numbers behind names that occur twice."""
    names = [one[0] for one in found]
    return [
        (f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name, *rest)
        for i, (name, *rest) in enumerate(found)
    ]
