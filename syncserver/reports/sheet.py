"""The printed register: the paper of a class and session in the order and numbering of the digital roll.

One HTML file with everything in it: no script, no second host, so it opens from a memory stick and prints on A4 from
any browser. Arabic, right to left. Boxes for absent and late only: whoever has neither was present, as on the sheets
that schools sign today. The code at the top finds the register again when the sheet is typed
(`reconciliation/sheets.py`).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date as Date
from datetime import timedelta

from clientcore.errors import BadInput
from clientcore.register import RegisterId
from reconciliation.sheets import plain_sheet_code, sheet_code
from syncserver.errors import RequestProblem
from syncserver.ports import Aside
from syncserver.store import calendars, roster
from syncserver.store.lists import list_of
from syncserver.store.port import Reader

_ARABIC_DIGITS = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
_WEEKDAYS = ("الإثنين", "الثلاثاء", "الأربعاء", "الخميس", "الجمعة", "السبت", "الأحد")
_SHIFTS = {"am": "الفترة الصباحية", "pm": "الفترة المسائية"}
_FIND_DAYS = 120  # a sheet that is typed later than this is named in full
_SPARE_ROWS = 2  # for pupils whom the list does not have yet
_TWO_COLUMNS_FROM = 46  # rows that still fit one A4 page under each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What stands on one printed register. `pupils`: (id, name) in roll order."""

    register: RegisterId
    school_name: str
    class_name: str
    grade: str
    pupils: Sequence[tuple[str, str]]

    @property
    def code(self) -> str:
        """Its short code."""
        return sheet_code(self.register)


async def read_sheet(reader: Reader, register: RegisterId) -> Sheet:
    """The sheet of a register, from the roster of its day.

    Raises:
        RequestProblem: `not-found`, for an unknown class or one without pupils on that day.
    """
    school, class_id, day = register.school, register.class_id, register.date
    known, name = await roster.class_of(reader, school, class_id, day), await roster.school_name(reader, school)
    pupils = await list_of(reader, school, class_id, day)
    if known is None or name is None or not pupils:
        raise RequestProblem("not-found", f"{school}/{class_id}: no pupils on {day}")
    return Sheet(register=register, school_name=name, class_name=known.name, grade=known.grade, pupils=pupils)


async def register_meant(reader: Reader, text: str, today: str) -> RegisterId:
    """A register from `school/class/date/session`, or from `school/class`: today, in the school's first session.

    Raises:
        RequestProblem: `bad-request`, `not-found`.
    """
    parts = text.split("/")
    if len(parts) == 2:
        sessions = (await calendars.place_of(reader, parts[0])).sessions
        if not sessions:
            raise RequestProblem("not-found", f"{parts[0]}: no such school")
        parts += [today, sessions[0]]
    try:
        return RegisterId.parse("/".join(parts))
    except BadInput as error:
        raise RequestProblem("bad-request", str(error)) from None


async def find_sheets(reader: Reader, school: str, typed: str, today: str, aside: Aside) -> list[RegisterId]:
    """The registers of a school's last months (and of the coming week, for sheets printed ahead) with this code."""
    code, sessions = plain_sheet_code(typed), (await calendars.place_of(reader, school)).sessions
    classes = await reader.fetch_all("SELECT id FROM classes WHERE school = ? ORDER BY id", (school,))
    last = Date.fromisoformat(today) + timedelta(days=7)
    days = [(last - timedelta(days=n)).isoformat() for n in range(_FIND_DAYS)]
    named = (
        RegisterId(school, class_id, day, session) for day in days for (class_id,) in classes for session in sessions
    )
    # Aside: a large school with two shifts has 80,000 of them, which takes a second.
    return await aside.run(lambda: [register for register in named if sheet_code(register) == code])


# ---- the page ---------------------------------------------------------------------------------------------------


def write_html(sheet: Sheet) -> bytes:
    """The sheet as one HTML file."""
    rows = [_pupil(number, pupil, name) for number, (pupil, name) in enumerate(sheet.pupils, 1)]
    rows += [_pupil(len(rows) + n, "", "") for n in range(1, _SPARE_ROWS + 1)]
    half = len(rows) if len(rows) < _TWO_COLUMNS_FROM else (len(rows) + 1) // 2
    columns = [rows[:half], rows[half:]]
    tables = "".join(f"<table>{_HEAD}<tbody>{''.join(some)}</tbody></table>" for some in columns if some)
    register = sheet.register
    facts = "".join(
        f"<div><dt>{label}</dt><dd>{value}</dd></div>"
        for label, value in (
            ("المدرسة", _text(sheet.school_name)),
            ("الفصل", _text(sheet.class_name)),
            ("اليوم", f"{_WEEKDAYS[Date.fromisoformat(register.date).weekday()]} {_bdi(_date(register.date))}"),
            ("الحصة", session_words(register.session)),
            ("عدد التلاميذ", arabic(len(sheet.pupils))),
        )
    )
    page = _PAGE.format(
        title=f"كشف الغياب · {html.escape(sheet.class_name)} · {register.date}",
        style=_STYLE,
        code=sheet.code,
        facts=facts,
        tables=tables,
        register=_bdi(html.escape(str(register))),
    )
    return page.encode()


def session_words(session: str) -> str:
    """A session in words: the whole day, or shift and lesson."""
    if session == "day":
        return "اليوم كله"
    return f"{_SHIFTS[session[:2]]}، حصة {arabic(int(session[2:]))}"


def arabic(number: int) -> str:
    """A number in the digits that stand beside the names on the phone."""
    return str(number).translate(_ARABIC_DIGITS)


def _date(date: str) -> str:
    year, month, day = date.split("-")
    return f"{int(day)}/{int(month)}/{year}".translate(_ARABIC_DIGITS)


def _pupil(number: int, pupil: str, name: str) -> str:
    about = f' data-pupil="{html.escape(pupil)}"' if pupil else ""
    return (
        f'<tr{about}><td class="no">{arabic(number)}</td><td class="name">{_text(name)}</td>'
        '<td class="tick"><i></i></td><td class="tick"><i></i></td><td class="note"></td></tr>'
    )


def _text(name: str) -> str:
    return f"<bdi>{html.escape(name)}</bdi>" if name else ""


def _bdi(safe: str) -> str:
    return f'<bdi dir="ltr">{safe}</bdi>'


_HEAD = "<thead><tr><th>م</th><th>الاسم</th><th>غياب</th><th>تأخير</th><th>ملاحظات</th></tr></thead>"
_STYLE = """
@page { size: A4; margin: 10mm 11mm 9mm }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 190mm; color: #000; background: #fff;
  font: 10.5pt/1.25 "Noto Naskh Arabic", "Noto Sans Arabic", "DejaVu Sans", sans-serif }
header { display: flex; justify-content: space-between; align-items: center; padding-bottom: 1.5mm;
  border-bottom: 1.5pt solid #000 }
h1 { font-size: 16pt; margin: 0 }
.code { text-align: center; border: 1pt solid #000; padding: .5mm 3mm; font-size: 9pt }
.code b { display: block; font: 700 15pt/1.2 "DejaVu Sans Mono", monospace; letter-spacing: .06em }
dl { display: flex; flex-wrap: wrap; gap: .5mm 7mm; margin: 1.5mm 0 }
dl div { display: flex; gap: 1.5mm }
dt { color: #333 }
dt::after { content: ":" }
dd { margin: 0; font-weight: 700 }
.how { margin: 0 0 1.5mm; font-size: 9pt }
main { display: flex; gap: 4mm; align-items: flex-start }
table { border-collapse: collapse; flex: 1; width: 100%; page-break-inside: auto }
th, td { border: .6pt solid #444; padding: 0 1.5mm; height: 5.15mm; text-align: start; vertical-align: middle }
th { font-size: 9pt; font-weight: 700 }
tr { page-break-inside: avoid }
.no { width: 9mm; text-align: center }
.tick { width: 14mm; text-align: center }
.tick i { display: inline-block; width: 3.6mm; height: 3.6mm; border: .8pt solid #000; vertical-align: middle }
.note { width: 34mm }
main table + table .note, main table:has(+ table) .note { width: 12mm }
.sign { display: flex; gap: 8mm; margin-top: 3mm }
.sign div { flex: 1; padding-top: 5mm; border-bottom: .8pt dotted #000 }
footer { margin-top: 2mm; font-size: 7.5pt; color: #333 }
"""
_PAGE = """<!doctype html>
<html lang="ar-EG" dir="rtl">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>كشف الغياب</h1><div class="code">رمز الكشف<b dir="ltr">{code}</b></div></header>
<dl>{facts}</dl>
<p class="how">وضع علامة ✓ في خانة الغياب أو التأخير فقط. من لا علامة له يُعد حاضرًا عند توقيع الكشف.</p>
<main>{tables}</main>
<div class="sign"><div>توقيع المعلّم / المعلّمة</div><div>توقيع المشرف</div><div>توقيع مدير المدرسة</div></div>
<footer>{register}</footer>
</body>
</html>
"""
