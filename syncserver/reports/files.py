"""A report as a file: JSON, JSON Lines, CSV, XLSX.

What came from outside (ids, names of districts) is text wherever it goes: leading zeros stay, and a cell that a
spreadsheet would take for a formula begins with an apostrophe. Files of programs have the lines only; what a person
opens ends with the total.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import Cell
from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter
from openpyxl.worksheet._write_only import WriteOnlyWorksheet

from syncserver.reports.columns import ARABIC, IDS, KEYS, PERIOD_WORDS, TITLES, TOTAL

FORMATS: Mapping[str, str] = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_BOM = "\ufeff"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_ID_WIDTH, _NUMBER_WIDTH = 18, 14
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def write(found: Mapping[str, Any], form: str, *, bom: bool = False, arabic: bool = False) -> bytes:
    """A report in one of `FORMATS`.

    Args:
        found: As `build.report` gives it.
        form: Name of the format.
        bom: CSV for people: a byte-order mark, without which spreadsheets read Arabic as another alphabet.
        arabic: CSV with a second line of Arabic headings.
    """
    if form == "json":
        return (json.dumps(found, ensure_ascii=False) + "\n").encode()
    if form == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found["rows"]).encode()
    if form == "csv":
        return to_csv(found, bom=bom, arabic=arabic)
    return to_xlsx(found)


def to_csv(found: Mapping[str, Any], *, bom: bool = False, arabic: bool = False) -> bytes:
    """UTF-8, commas, CRLF as RFC 4180 has it; the first line are the stable English keys."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(KEYS)
    if arabic:
        writer.writerow([ARABIC[key] for key in KEYS])
    for row in found["rows"]:
        writer.writerow([harmless(row[key]) if key in IDS else row[key] for key in KEYS])
    return ((_BOM if bom else "") + out.getvalue()).encode()


def harmless(text: str | None) -> str:
    """Text from outside that no spreadsheet computes."""
    if text is None:
        return ""
    return f"'{text}" if text.startswith(_FORMULA) else text


def to_xlsx(found: Mapping[str, Any]) -> bytes:
    """One sheet, right to left, Arabic headings over the English keys, both frozen; numbers are numbers, ids text."""
    book = Workbook(write_only=True)
    sheet = book.create_sheet(TITLES[found["kind"]])
    sheet.sheet_view.rightToLeft = True
    sheet.freeze_panes = "A4"
    for number, key in enumerate(KEYS, 1):
        sheet.column_dimensions[get_column_letter(number)].width = _ID_WIDTH if key in IDS else _NUMBER_WIDTH
    sheet.append([_cell(sheet, _title(found), bold=True)])
    sheet.append([_cell(sheet, ARABIC[key], bold=True, wrapped=True) for key in KEYS])
    sheet.append([_cell(sheet, key) for key in KEYS])
    for row in found["rows"]:
        sheet.append([_value(sheet, key, row[key]) for key in KEYS])
    total = {**found["total"], "district": TOTAL["ar"]}
    sheet.append([_value(sheet, key, total[key], bold=True) for key in KEYS])
    out = io.BytesIO()
    book.save(out)
    return _without_clock(out.getvalue())


def _title(found: Mapping[str, Any]) -> str:
    about = " · ".join(str(found[name]) for name in ("district", "school", "class") if found[name] is not None)
    dates = found["from"] if found["period"] == "day" else f"{found['from']} – {found['to']}"
    return f"{TITLES[found['kind']]} · {about} · {PERIOD_WORDS[found['period']]} {dates}"


def _value(sheet: WriteOnlyWorksheet, key: str, value: str | float | None, *, bold: bool = False) -> Cell:
    if key in IDS:
        return _cell(sheet, "" if value is None else str(value), bold=bold)
    cell = WriteOnlyCell(sheet, value=value)
    cell.font = Font(bold=bold)
    cell.number_format = "0.0" if key.endswith("_pct") else "0"
    return cell


def _cell(sheet: WriteOnlyWorksheet, text: str, *, bold: bool = False, wrapped: bool = False) -> Cell:
    """A cell of text: typed as text, so that `=1+1` is shown and not computed, and a leading zero stays."""
    cell = WriteOnlyCell(sheet, value=text)
    cell.data_type, cell.number_format = "s", "@"
    cell.font = Font(bold=bold)
    cell.alignment = Alignment(wrap_text=wrapped, vertical="top", readingOrder=2 if bold else 0)
    return cell


def _without_clock(data: bytes) -> bytes:
    """The same workbook with fixed times, so that equal reports are equal files."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as made, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as fixed:
        for name in sorted(made.namelist()):
            body = made.read(name)
            if name == "docProps/core.xml":
                body = _UNDATED
            fixed.writestr(zipfile.ZipInfo(name, _ZIP_TIME), body, zipfile.ZIP_DEFLATED)
    return out.getvalue()


_UNDATED = (
    b'<?xml version="1.0" encoding="UTF-8"?><cp:coreProperties xmlns:cp='
    b'"http://schemas.openxmlformats.org/package/2006/metadata/core-properties"/>'
)
