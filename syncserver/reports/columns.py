"""The columns of a report: stable English keys for programs, Arabic headings for people."""

from __future__ import annotations

from collections.abc import Mapping

from reconciliation.reports import COUNTS, SHARES

KINDS = ("class", "school", "district")
PERIODS = ("day", "week")
IDS = ("district", "school", "class", "date", "session")
"""What a line is about; empty where it is about more than one of them."""
KEYS = (*IDS, *COUNTS, *SHARES)

ARABIC: Mapping[str, str] = {
    "district": "الإدارة التعليمية",
    "school": "المدرسة",
    "class": "الفصل",
    "date": "التاريخ",
    "session": "الحصة",
    "registers_expected": "السجلات المنتظرة",
    "registers_taken": "سجلات تم تسجيلها",
    "registers_no_session": "حصص لم تُعقد",
    "registers_in_review": "سجلات وصلت وتحتاج مراجعة",
    "registers_not_arrived": "سجلات لم تصل من الهاتف بعد",
    "registers_silent": "سجلات هاتفها لم يتصل",
    "registers_not_taken": "سجلات لم تُسجَّل بعد",
    "registers_not_due": "سجلات لم يحن موعدها",
    "registers_unexpected": "سجلات خارج المواعيد",
    "roster": "عدد التلاميذ في القائمة",
    "present": "حضور",
    "late": "تأخير",
    "left_early": "انصراف بإذن",
    "absent": "غياب",
    "absent_excused": "غياب بعذر مقبول",
    "absent_unexcused": "غياب بدون عذر",
    "official_duty": "مهمة رسمية",
    "suspended": "موقوف عن الدراسة",
    "attended": "إجمالي الحضور",
    "absent_all": "إجمالي الغياب المسجَّل",
    "not_taken": "لم يُسجَّل بعد",
    "not_taken_no_mark": "لم يُسجَّل: دون علامة",
    "not_taken_in_review": "لم يُسجَّل: يحتاج مراجعة",
    "not_taken_not_arrived": "لم يُسجَّل: لم يصل من الهاتف",
    "not_taken_silent": "لم يُسجَّل: الهاتف لم يتصل",
    "late_arrivals": "تسجيل في الموعد ووصول متأخر",
    "adjustments": "تعديلات معتمدة",
    "adjustments_waiting": "طلبات تعديل في انتظار الاعتماد",
    "disputed": "علامتان مختلفتان",
    "held": "علامات في انتظار المراجعة",
    "attended_pct": "نسبة الحضور من القائمة ٪",
    "absent_pct": "نسبة الغياب المسجَّل من القائمة ٪",
    "suspended_pct": "نسبة الموقوفين من القائمة ٪",
    "not_taken_pct": "نسبة ما لم يُسجَّل من القائمة ٪",
}
TOTAL = {"ar": "الإجمالي", "en": "total"}
TITLES = {"class": "تقرير فصل", "school": "تقرير مدرسة", "district": "تقرير إدارة تعليمية"}
PERIOD_WORDS = {"day": "يوم", "week": "أسبوع"}

# What fits a terminal; the files have everything.
SHOWN: Mapping[str, str] = {
    "roster": "roster",
    "attended": "attended",
    "absent_all": "absent",
    "not_taken": "no answer",
    "attended_pct": "att. %",
}
MISSING: Mapping[str, str] = {
    "registers_not_taken": "not taken",
    "registers_not_arrived": "not arrived",
    "registers_silent": "silent",
    "registers_in_review": "in review",
    "registers_no_session": "no session",
    "registers_not_due": "not due",
}
NOTED: Mapping[str, str] = {
    "late_arrivals": "came late",
    "adjustments": "adjusted",
    "adjustments_waiting": "waiting",
    "disputed": "disputed",
    "held": "held",
    "registers_unexpected": "registers not expected",
}
