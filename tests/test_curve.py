"""Measured curves: what is put right in arrays, and what is read from files of each format."""

import netCDF4
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grfsaxs_lib as gx
from grfsaxs_lib.measurement.curve import check_unit, find_units

Q = np.array([0.1, 0.2, 0.3, 0.5, 0.8, 1.0])
I = np.array([9.0, 7.0, 5.0, 3.0, 1.5, 1.0])  # noqa: E741
S = 0.1 * I
DQ = 0.02 * Q


def test_units():
    nanometres = "1/nm nm^-1 nm-1 nm⁻¹ (1/nm) nm^{-1} (nm)-1 nm**-1".split() + ["Inverse Nanometres", "1 / nm"]
    angstroms = "1/A A^-1 Å⁻¹ 1/Å 1/angstrom Angstrom^-1 [A-1] Ang.^-1 A^{-1}".split() + ["per ångström"]
    for known, texts in (("1/nm", nanometres), ("1/A", angstroms)):
        assert [check_unit(text) for text in texts] == [known] * len(texts)
    for text in (
        "",
        "nm",
        "A",
        "1/cm",
        "cm^-1",
        "1/Ampere",
        "m^-1",
        "Radius 5000A",
        "1/nm or 1/A",
        "furlong",
        "1/nm^2",
    ):
        with pytest.raises(ValueError, match="the unit of q must be '1/nm' or '1/A'"):
            check_unit(text)


@pytest.mark.parametrize(
    "unit, text",
    [
        *[("1/A", text) for text in ("Q (1/A), I (1/cm), 12 nm thick", "q_A^-1;I", "q in A^-1", "| Q [1/Ang] |")],
        *[("1/nm", text) for text in ("q_nm^-1,I", "vector q in inverse nanometres", "q/nm^-1;I;s", "# q nm-1 I")],
        *[
            ("", text)
            for text in ("Batch A - 10 % PEG", "Sample A-1", "C:/data/1/A/run.dat", "1.54A -1", "1 nm", "1/nm^2")
        ],
    ],
)
def test_units_in_a_header(unit, text):
    """A unit counts in brackets or behind q; words that look like one do not."""
    assert find_units(text) == ({unit} if unit else set())


def test_curve_in_angstrom():
    curve = gx.Curve(Q / 10, I, S, DQ / 10, unit="1/A", slit_length=0.2)
    np.testing.assert_allclose(curve.q, Q, rtol=1e-12)
    np.testing.assert_allclose(curve.dq, DQ, rtol=1e-12)
    assert curve.slit_length == pytest.approx(2.0) and curve.notes == () and (curve.sigma == S).all()
    assert "6 points, q from 0.1 to 1 nm^-1, with sigma, dq, slit_length" in repr(curve)


def test_rows_left_out():
    q = np.append(Q, [0.0, -1.0, np.nan, 0.6, 0.7, 0.9])
    intensity = np.append(I, [1, 1, 1, np.inf, -2.0, 0.0])
    sigma = np.append(S, [1, 1, 1, 1, 0.5, 0.0])
    curve = gx.Curve(q, intensity, sigma)
    assert 0.7 in curve.q and curve.intensity.min() == -2.0  # a negative intensity stays if its uncertainty is known
    assert [note.split(" rows")[0] for note in curve.notes[:3]] == ["2 of 12", "2 of 10", "1 of 8"]
    assert "sorted" in curve.notes[3]
    bare = gx.Curve(q, intensity)
    np.testing.assert_array_equal(bare.q, Q)
    assert bare.sigma is None and "no sigma tells its uncertainty" in bare.notes[-1]
    nothing = gx.Curve(Q, I, 0 * S, 0 * DQ)
    assert nothing.sigma is None and nothing.dq is None  # zeros are no measurement


def test_repeated_values():
    """Two measurements of a point: the mean weighted by the variances, as in any textbook."""
    q, intensity, sigma = np.append(Q, 0.3), np.append(I, 6.0), np.append(S, 1.0)
    curve = gx.Curve(q, intensity, sigma)
    weights = np.array([S[2], 1.0]) ** -2
    assert curve.intensity[2] == pytest.approx(np.average([5.0, 6.0], weights=weights))
    assert curve.sigma[2] == pytest.approx(weights.sum() ** -0.5) and (np.diff(curve.q) > 0).all()
    assert curve.notes == ("rows sorted by q", "1 repeated values of q averaged")
    assert gx.Curve(q, intensity).intensity[2] == pytest.approx(5.5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((Q[:4], I[:4]), "at least five good rows; got 4"),
        ((Q, I[:5]), "intensity must be one row of as many numbers as q"),
        ((Q, I, S[:, np.newaxis]), "sigma must be one row"),
        ((Q, I, ["a"] * 6), "sigma must be real numbers"),
        ((Q, np.ma.masked_less(I, 2)), "masked"),
    ],
)
def test_bad_arrays(arguments, message):
    with pytest.raises(ValueError, match=message):
        gx.Curve(*arguments)


def rows(separator=" ", comma=False, exponent="e", columns=(Q, I, S, DQ), end="\n"):
    lines = [
        separator.join(f"{value:.6e}".replace("e", exponent) for value in row) for row in zip(*columns, strict=True)
    ]
    return end.join(line.replace(".", ",") if comma else line for line in lines) + end


TEXTS = {
    "spaces": "q [1/nm] I sigma dq\n" + rows("   "),
    "tabs": "# q in nm^-1\n" + rows("\t"),
    "commas": "q_nm^-1,I,dI,dq\n" + rows(","),
    "comma and space": "q (1/nm), I, err, dq\n" + rows(", "),
    "semicolons": "q/nm^-1;I;s;dq\n" + rows(";"),
    "decimal comma": "q [nm-1]; I\n" + rows(" ", comma=True),
    "decimal comma, semicolons": "q [1/nm]\n" + rows(";", comma=True),
    "decimal comma, tabs": "q [1/nm]\n" + rows("\t", comma=True),
    "D exponents": "q [1/nm]\n" + rows(" ", exponent="D"),
    "carriage returns": "q [1/nm]\r" + rows(" ", end="\r"),
    "windows": "q [1/nm]\r\n" + rows(" ", end="\r\n"),
    "no header": rows(" "),
    "numbers in the header": "sample 7\n12 3\n5\nq [1/nm] I\n" + rows(" "),
    "a tail": "q [1/nm]\n" + rows(" ") + "<xml>\n <a b='1'/>\n</xml>\n",
    "byte order mark": "\ufeffq [1/nm]\n" + rows(" "),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text(tmp_path, kind):
    path = tmp_path / "sample.dat"
    path.write_bytes(TEXTS[kind].encode("utf-8"))
    curve = gx.read_curve(path, unit="1/nm" if kind == "no header" else None)
    for found, expected in ((curve.q, Q), (curve.intensity, I), (curve.sigma, S), (curve.dq, DQ)):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert curve.name == "sample" and curve.notes == ()


BROKEN = {
    "empty": ("0.3,5,", 5), "NA": ("0.3,5,NA", 5), "stars": ("0.3,5,****", 5), "NaN of C": ("0.3,5,1.#IND", 5),
    "comment": ("0.3,5,0.5 # seen twice", 6), "blank": ("\n0.3,5,0.5", 6), "comment line": ("# a break\n0.3,5,0.5", 6),
    "thousands": ("1,000.5,5,0.5", None), "words": ("0.3,five,0.5", None), "glued": ("0.3,5,1.0-101", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_single_odd_row_loses_no_other(tmp_path, kind):
    """It is read, counted among those left out, or an error that names its line; never the end of the table."""
    lines = rows(",", columns=(Q, I, S)).splitlines()
    lines[2], left = BROKEN[kind]
    path = tmp_path / "sample.csv"
    path.write_text("\n".join(lines))
    if left is None:
        with pytest.raises(ValueError, match="sample.csv"):
            gx.read_curve(path, "1/nm")
    else:
        curve = gx.read_curve(path, "1/nm")
        assert curve.q.size == left and curve.q[-1] == 1.0 and curve.q[0] == 0.1
        assert (left == 6) == (curve.notes == ())


def test_an_odd_row_in_a_long_table(tmp_path):
    q = np.linspace(0.1, 1, 40)
    lines = rows(columns=(q, 1 / q, 0.1 / q)).splitlines()
    path = tmp_path / "sample.dat"
    for where in (0, 4, 35, 39):
        odd = lines[:where] + ["1,234.5 0.1 0.2"] + lines[where + 1 :]
        path.write_text("\n".join(odd))
        with pytest.raises(ValueError, match=rf"sample.dat, line {where + 1}: .* is no row of the table beside it"):
            gx.read_curve(path, "1/nm")


@pytest.mark.parametrize(
    "header, columns, message",
    [
        ("2theta I err", (Q, I, S), "of the columns 2theta, I, err none is called q"),
        ("", (np.arange(1.0, 7), Q, I, S), "column 1 counts the rows"),
    ],
)
def test_the_wrong_column_is_not_taken_for_q(tmp_path, header, columns, message):
    path = tmp_path / "sample.dat"
    path.write_text(header + "\n" + rows(columns=columns))
    with pytest.raises(ValueError, match=message):
        gx.read_curve(path, "1/nm")


@pytest.mark.parametrize("word", ["sig", "I_err", "error", "SD", "e", "std", "+/-", "rms", "dI", "sigma", "unc"])
def test_names_of_uncertainties(tmp_path, word):
    path = tmp_path / "sample.dat"
    path.write_text(f"<q> <I> <{word}>\n" + rows(columns=(Q, I, S)))
    np.testing.assert_allclose(gx.read_curve(path, "1/nm").sigma, S, rtol=1e-6)
    path.write_text("q I weight\n" + rows(columns=(Q, I, S)))
    assert gx.read_curve(path, "1/nm").sigma is None
    assert gx.read_curve(path, "1/nm").notes == ("column 'weight' is not used",)


@given(st.sampled_from([" ", "\t", ";", "  ", " ; "]), st.booleans(), st.sampled_from("eED"), st.integers(2, 4))
def test_any_separator(tmp_path_factory, separator, comma, exponent, count):
    path = tmp_path_factory.mktemp("text") / "one.txt"
    path.write_text(rows(separator, comma, exponent, (Q, I, S, DQ)[:count]))
    curve = gx.read_curve(path, unit="1/A")
    np.testing.assert_allclose(curve.q, 10 * Q, rtol=1e-6)
    np.testing.assert_allclose(curve.intensity, I, rtol=1e-6)
    assert (curve.sigma is None) == (count < 3) and (curve.dq is None) == (count < 4)


def test_named_columns(tmp_path):
    path = tmp_path / "sample.txt"
    path.write_text("Q (1/A)   dQ   I(Q)   std\n" + rows(" ", columns=(Q, DQ, I, S)))
    curve = gx.read_curve(path)
    np.testing.assert_allclose(curve.sigma, S, rtol=1e-6)
    np.testing.assert_allclose(curve.dq, 10 * DQ, rtol=1e-6)
    path.write_text(rows(" ", columns=(Q, I, 100 * Q, S)))
    with pytest.raises(ValueError, match="sample.txt does not say the unit of q: give it, as in unit='1/nm'"):
        gx.read_curve(path)
    curve = gx.read_curve(path, "1/nm", columns=("q", "intensity", "", "sigma"))
    np.testing.assert_allclose(curve.sigma, S, rtol=1e-6)
    assert curve.dq is None
    path.write_text(rows(" ", columns=(Q, I, S, 100 * Q)))
    with pytest.raises(
        ValueError, match="column 4 is larger than q and cannot be its resolution; say what the columns"
    ):
        gx.read_curve(path, "1/nm")


def test_slit_length(tmp_path):
    path = tmp_path / "usans.abs"
    path.write_text(
        "The 4 columns are | Q (1/A) | I(Q) (1/cm) | std. dev. | sigmaQ |\n" + rows(columns=(Q, I, S, 0 * Q - 0.117))
    )
    curve = gx.read_curve(path)
    assert curve.slit_length == pytest.approx(1.17) and curve.dq is None
    assert "slit length" in curve.notes[0]


def test_pdh(tmp_path):
    head = "a title\nSAXS BOX\n" + f"{6:9d}" + "        0" * 7 + "\n" + ("  0.0E+00" * 5 + "\n") * 2
    path = tmp_path / "sample.pdh"
    path.write_text(head + rows("   ", columns=(Q, I, S)) + "<?xml version='1.0'?>\n<a><b>1 2 3</b></a>\n")
    curve = gx.read_curve(path)
    np.testing.assert_allclose(curve.q, Q, rtol=1e-6)
    np.testing.assert_allclose(curve.sigma, S, rtol=1e-6)
    assert curve.notes == ("q in nm^-1, as .pdh files have it",)
    path.write_text(head.replace("        6", "       66") + rows("   ", columns=(Q, I, S)))
    with pytest.raises(ValueError, match="sample.pdh: line 3 promises 66 rows"):
        gx.read_curve(path)


def check_refusal(path, content, message):
    """A file of this content is refused with this message, which names the file."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        gx.read_curve(path)
    assert path.name in str(error.value)


def cansas(unit="1/A", names=("one",), sigma=True, extra=""):
    entries = ""
    for name in names:
        data = "".join(
            f'<Idata><Q unit="{unit}">{q}</Q><I unit="1/cm">{i}</I>'
            + (f"<Idev>{s}</Idev>" if sigma else "")
            + "</Idata>"
            for q, i, s in zip(Q, I, S, strict=True)
        )
        entries += f"<SASentry><Title>a title</Title><SASdata name='{name}'>{data}</SASdata></SASentry>"
    return f"<?xml version='1.0'?>\n{extra}<SASroot version='1.1' xmlns='urn:cansas1d:1.1'>{entries}</SASroot>"


def test_cansas_xml(tmp_path):
    path = tmp_path / "sample.xml"
    path.write_text(cansas())
    curve = gx.read_curve(path)
    np.testing.assert_allclose(curve.q, 10 * Q)
    assert curve.name == "one" and (curve.sigma == S).all() and curve.dq is None
    path.write_text(cansas("1/nm", sigma=False))
    assert gx.read_curve(path).sigma is None and gx.read_curve(path).q[0] == pytest.approx(0.1)
    contradicted = gx.read_curve(path, "1/A")
    assert contradicted.q[0] == pytest.approx(1.0) and "contradicts" in contradicted.notes[0]
    path.write_text(cansas(names=("one", "two", "two")))
    assert [curve.name for curve in gx.read_curves(path)] == ["one", "two (1)", "two (2)"]
    assert gx.read_curve(path, entry="one").name == "one"
    with pytest.raises(ValueError, match=r"holds 'one', 'two \(1\)', 'two \(2\)': choose one by entry="):
        gx.read_curve(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            cansas(extra='<!DOCTYPE a [<!ENTITY b "c">]>\n'),
            "declares a document type or entities, which are not expanded",
        ),
        (cansas()[:-20], "no well-formed XML"),
        (cansas("furlong"), "q is in furlong, which is neither 1/nm nor 1/A"),
        (cansas("nm"), "q is in nm, which is neither"),
        (cansas(""), "does not say the unit of q"),
        (
            cansas().replace("<Idev>", "<Qdev unit='1/nm'>").replace("</Idev>", "</Qdev>"),
            "Q is in 1/A and Qdev in 1/nm",
        ),
        (cansas().replace("<I ", "<J ").replace("</I>", "</J>"), "every Idata needs Q and I"),
        (cansas().replace(">9.0<", ">nine<"), "'nine' in I is no number"),
        ("<html><body>1 2 3</body></html>", "holds no curve"),
    ],
)
def test_bad_xml(tmp_path, content, message):
    check_refusal(tmp_path / "sample.xml", content.encode(), message)


def test_nexus(tmp_path):
    path = tmp_path / "sample.h5"
    with netCDF4.Dataset(path, "w") as file:
        for name, unit in (("first", "1/nm"), ("second", "1/angstrom")):
            data = file.createGroup(f"{name}/sasdata")
            data.parent.canSAS_class, data.canSAS_class = "SASentry", "SASdata"
            data.createDimension("n", 6)
            values = {"Q": Q, "I": I, "Idev": S, "Qdev": DQ} if name == "first" else {"Q": Q, "I": I}
            for variable, numbers in values.items():
                data.createVariable(variable, "f8", ("n",))[:] = numbers
            data["Q"].units, data["I"].units = unit, "1/cm"
            if name == "first":
                data["I"].uncertainties, data["Q"].resolutions, data["Qdev"].units = "Idev", "Qdev", unit
    first, second = gx.read_curves(path)
    assert (first.name, second.name) == ("first", "second")
    np.testing.assert_allclose(first.q, Q)
    np.testing.assert_allclose(second.q, 10 * Q)
    assert (first.sigma == S).all() and (first.dq == DQ).all() and second.sigma is None and second.dq is None
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="sample.h5 is damaged"):
        gx.read_curves(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "holds no table of five rows"),
        (b"nothing here\n" * 20, "holds no table of five rows"),
        (b"1 2\n3 4\n5 6\n7 8\n", "holds no table of five rows"),
        (b"\x00\x01\x02\x03" * 100, "is a binary file"),
        ((rows() + "a break\n" + rows()).encode(), "line 8: .* is no row of the table beside it; mend the file"),
        (("q in nm^-1 or A^-1\n" + rows()).encode(), "names both 1/nm and 1/A"),
        (rows(columns=(Q, I, S, Q, Q, Q, Q)).encode(), "line 1: 7 columns"),
    ],
)
def test_bad_texts(tmp_path, content, message):
    check_refusal(tmp_path / "sample.dat", content, message)


def test_other_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="there.dat does not exist or is no file"):
        gx.read_curve(tmp_path / "there.dat")
    path = tmp_path / "sample.dat"
    path.write_text(rows())
    with pytest.raises(ValueError, match="the unit of q must be"):
        gx.read_curve(path, "1/cm")
    for bad in (("q", "sigma"), ("q", "intensity", "q"), ("q", "intensity", "I")):
        with pytest.raises(ValueError, match="columns must name q and intensity"):
            gx.read_curve(path, "1/nm", columns=bad)
    with pytest.raises(ValueError, match="has 4 columns"):
        gx.read_curve(path, "1/nm", columns=("q", "intensity", "", "", "sigma"))
