"""The README in a school's file: for whoever opens it without us, in both languages."""

# ruff: noqa: E501 (a row of a table stands on one line)

README = """# {school}

هذا الملف فيه كل ما سجّلته المدرسة في نظام حضور، بصيغ مفتوحة: JSON Lines (سجل في كل سطر، UTF-8) ومستندات Automerge.

| الملف | المحتوى |
|---|---|
| `manifest.json` | أسماء الملفات وأعدادها وبصمة SHA-256 لكل ملف |
| `roster/` | المدرسة والفصول وقوائم التلاميذ والعاملين بتواريخها |
| `calendar/` | أيام الدراسة والإجازات والمواعيد، مع مستند كل قرار |
| `log/` | الأدلة: الرسائل كما وقّعتها الهواتف (`frames.bin` وفهرسها)، والتغييرات، ومفاتيح الهواتف العامة |
| `registers/` | السجلات الرسمية (`registers.jsonl` للقراءة)، ومستند Automerge لكل سجل |
| `decisions/` | قرارات التعديل والاعتماد ودمج السجلات والتفويض |
| `paper/` | ما أُدخل من الكشوف الورقية، والمقارنة الأسبوعية |
| `events/` | الأحداث كما أُعلنت (CloudEvents) |
| `audit/` | سجل القرارات الخاص بالمدرسة |

«لم يُسجَّل بعد» ليس غيابًا. الغياب لا يكون إلا بعلامة من شخص مسؤول.
الملف فيه أسماء تلاميذ: حفظه كحفظ السجل الورقي. ليس فيه كلمة سر ولا مفتاح خاص. بعد نقل المدرسة إلى خادم آخر يلزم رمز جديد لكل هاتف.

---

This file holds everything the school has recorded in Hudur, in open formats: JSON Lines (a record on each line, UTF-8)
and Automerge documents.

| file | what it holds |
|---|---|
| `manifest.json` | names of the files, counts, the SHA-256 of each; digests of log, registers and events |
| `roster/` | the school, its classes, its pupils and staff, with dates |
| `calendar/` | school days, holidays and timetables, with the reference of each decision |
| `log/` | the evidence: frames as phones signed them (`frames.bin`; `at` and `bytes` in `frames.jsonl` cut it), changes (slices of frames, `chunk_at` counts from 1), public keys of devices |
| `registers/` | the official registers (`registers.jsonl` to be read, `outcomes.jsonl` exact) and an Automerge document for each |
| `decisions/` | adjustments, approvals, merged records, bulk operations, delegations |
| `paper/` | what was typed from paper, and the weekly comparison |
| `events/` | the events as they were told (CloudEvents 1.0) |
| `audit/` | the audit trail as far as it concerns the school; each hash follows from `prev_hash` and the row |

*Not taken* is never *absent*: an absence is a mark that somebody entitled made.
The file names pupils: keep it as you keep a paper register. It holds no password and no private key. On another server
each phone needs a new code; it keeps its work and its key.

`hudur import school FILE --store sqlite:new.db` reads it back and settles every register anew.
"""
