"""What is wrong with a row of a roster export, in the words of those who mend it: English and Arabic, by code. Pure.

Each sentence says what to do. Arabic addresses nobody by gender (verbal nouns), as on every screen of ours.
"""

from __future__ import annotations

MESSAGES: dict[str, tuple[str, str]] = {
    "zip-too-large": (
        "The zip is over 128 MB: export by governorate.",
        "حجم الملف المضغوط أكبر من ١٢٨ ميجابايت: يلزم التصدير لكل محافظة على حدة.",
    ),
    "zip-broken": (
        "This is no readable zip file: export again and copy it whole.",
        "الملف ليس ملف zip سليمًا: يلزم إعادة التصدير ونسخه كاملًا.",
    ),
    "zip-damaged": (
        "The file inside the zip is damaged or cut short: export and copy it again.",
        "الملف داخل الـ zip تالف أو ناقص: يلزم إعادة التصدير والنسخ.",
    ),
    "zip-directory": (
        "The zip holds far more entries than OneRoster has files: zip only the OneRoster CSV files.",
        "عدد الملفات داخل الـ zip أكبر من المعتاد: يلزم ضغط ملفات OneRoster فقط.",
    ),
    "zip-names": (
        "Files must stand at the top of the zip, each once, with plain names: no folders.",
        "يلزم وضع الملفات في المستوى الأول من الـ zip، كل ملف مرة واحدة، بدون مجلدات.",
    ),
    "zip-encrypted": ("Remove the password from the zip.", "يلزم إزالة كلمة السر من ملف الـ zip."),
    "zip-method": ("Zip with the ordinary method (deflate).", "يلزم الضغط بالطريقة العادية (deflate)."),
    "zip-bomb": (
        "The file unpacks to far more than a roster can hold: it was not read.",
        "حجم الملف بعد فك الضغط أكبر بكثير من أي قائمة: لم تتم قراءته.",
    ),
    "file-missing": ("The file is missing from the zip: add it.", "الملف غير موجود داخل الـ zip: يلزم إضافته."),
    "version": (
        "Only OneRoster 1.2 is read: choose version 1.2 in the export.",
        "المقبول هو الإصدار 1.2 من OneRoster: يلزم اختياره عند التصدير.",
    ),
    "delta": (
        "Delta files are not read: choose bulk in the export.",
        "ملفات الفروق (delta) غير مقبولة: يلزم اختيار التصدير الكامل (bulk).",
    ),
    "not-bulk": (
        "The manifest must declare this file as bulk.",
        "يلزم أن يذكر manifest.csv هذا الملف بقيمة bulk.",
    ),
    "header-missing": ("The first line lacks this column.", "السطر الأول ينقصه هذا العمود."),
    "header-twice": ("The first line names this column twice.", "السطر الأول يذكر هذا العمود مرتين."),
    "header-wide": ("The file has too many columns.", "عدد الأعمدة أكبر من المسموح."),
    "line-long": ("The line is too long for a roster row.", "السطر أطول من المسموح."),
    "too-many-rows": (
        "The file has too many rows: export by governorate.",
        "عدد السطور أكبر من المسموح: يلزم التصدير لكل محافظة.",
    ),
    "csv-quote": (
        "A quote is not closed, or there is a line break inside a field: write each record on one line.",
        "علامة تنصيص غير مغلقة أو سطر جديد داخل خانة: يلزم كتابة كل سجل في سطر واحد.",
    ),
    "row-shape": (
        "The row has another number of fields than the first line: look for a missing or extra comma.",
        "عدد الخانات يختلف عن السطر الأول: يلزم مراجعة الفواصل.",
    ),
    "not-utf8": (
        "The text is not UTF-8: save as CSV UTF-8.",
        "ترميز النص ليس UTF-8: يلزم الحفظ بصيغة CSV UTF-8.",
    ),
    "control-characters": (
        "The text holds invisible control characters: type it again.",
        "النص به رموز تحكم غير مرئية: يلزم كتابته من جديد.",
    ),
    "value-missing": ("This value must not be empty.", "هذه القيمة لا يجوز أن تكون فارغة."),
    "value-long": ("This text is too long: shorten it.", "هذا النص أطول من المسموح: يلزم اختصاره."),
    "duplicate-id": (
        "This sourcedId stands in the file twice: keep one row.",
        "هذا المعرّف (sourcedId) مكرّر في الملف: يلزم إبقاء سطر واحد.",
    ),
    "bad-id": (
        "A sourcedId has 1 to 36 of A-Z a-z 0-9 . _ - and begins with a letter or digit: change it where it was made.",
        "المعرّف (sourcedId) من ١ إلى ٣٦ من الحروف اللاتينية والأرقام و . _ - ويبدأ بحرف أو رقم: يلزم تعديله في مصدره.",
    ),
    "bad-status": (
        "The status must be empty, active or tobedeleted.",
        "الحالة (status) إما فارغة أو active أو tobedeleted.",
    ),
    "bad-date": ("The date must exist and read YYYY-MM-DD.", "يلزم أن يكون التاريخ صحيحًا وبصيغة YYYY-MM-DD."),
    "dates-reversed": ("The end lies before the beginning.", "تاريخ النهاية يسبق تاريخ البداية."),
    "bad-type": (
        "This word is not one of those that OneRoster 1.2 lists here.",
        "هذه الكلمة ليست من قيم OneRoster 1.2.",
    ),
    "bad-boolean": ("The value must be true or false.", "القيمة إما true أو false."),
    "bad-role": (
        "This is no OneRoster 1.2 role: use student, teacher, principal …",
        "هذا الدور ليس من أدوار OneRoster 1.2: مثل student أو teacher أو principal.",
    ),
    "pupil-and-staff": (
        "One person is pupil and staff of the same school: two people share an id, or one role is wrong.",
        "الشخص نفسه طالب وعامل بالمدرسة ذاتها: إما معرّف مشترك لشخصين أو دور خطأ.",
    ),
    "unknown-school": ("The school is not in orgs.csv.", "المدرسة غير موجودة في orgs.csv."),
    "unknown-user": ("The person is not in users.csv.", "الشخص غير موجود في users.csv."),
    "unknown-class": ("The class is not in classes.csv.", "الفصل غير موجود في classes.csv."),
    "unknown-term": ("The term is not in academicSessions.csv.", "الفصل الدراسي غير موجود في academicSessions.csv."),
    "school-mismatch": (
        "The class belongs to another school than this row says.",
        "الفصل تابع لمدرسة أخرى غير المذكورة في هذا السطر.",
    ),
    "no-role": (
        "The person has no role in this school: add a row to roles.csv.",
        "الشخص ليس له دور في هذه المدرسة: يلزم إضافة سطر في roles.csv.",
    ),
    "role-mismatch": (
        "The role in the class contradicts the role in the school.",
        "الدور في الفصل يخالف الدور في المدرسة.",
    ),
    "duplicate-enrolment": (
        "The person is in this class twice on the same days: keep one row.",
        "الشخص مقيّد في هذا الفصل مرتين في الأيام نفسها: يلزم إبقاء سطر واحد.",
    ),
    "mass-ending": (
        "The import would end more than a third of the school's pupils: the export looks cut short.",
        "الاستيراد سينهي قيد أكثر من ثلث طلاب المدرسة: يبدو أن الملف ناقص.",
    ),
}


def message(code: str) -> tuple[str, str]:
    """The sentence for a code, English and Arabic.

    Raises:
        KeyError: For a code that nobody wrote words for; a test walks all codes of the reader.
    """
    return MESSAGES[code]
