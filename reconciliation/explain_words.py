"""What `explain` says, in Arabic and English: one sentence for each step, and words for codes and slugs. Pure.

Arabic is the source; the English says the same. Sentences name people, devices and documents by id only.
"""

# ruff: noqa: E501 (a sentence stands on one line beside its translation)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Words = tuple[str, str]
"""Arabic, English."""

WORDS: Mapping[str, Words] = {
    "present": ("حضور", "present"),
    "late": ("تأخير", "late"),
    "left_early": ("انصراف بإذن", "left early"),
    "absent": ("غياب", "absent"),
    "absent_excused": ("غياب بعذر مقبول", "absent, excused"),
    "absent_unexcused": ("غياب بدون عذر", "absent, unexcused"),
    "official_duty": ("مهمة رسمية", "official duty"),
    "suspended": ("موقوف عن الدراسة", "suspended"),
    "not_taken": ("لم يُسجَّل بعد", "not taken"),
    "held": ("انعقاد الحصة", "the session was held"),
    "no_session": ("عدم انعقاد الحصة", "no session"),
    "all_present": ("الكل حاضرون", "all present"),
    "on_time": ("في الموعد", "on time"),
    "late_arrival": ("تسجيل في الموعد ووصول متأخر", "made in time, arrived later"),
    "adjustment": ("طلب تعديل بعد الموعد", "an adjustment, made after the window"),
    "high": ("عالية", "high"),
    "medium": ("متوسطة", "medium"),
    "low": ("منخفضة", "low"),
    "beacon": ("وقت الخادم كما سمعه الهاتف في نفس التشغيل", "the server's time as the phone heard it in this app session"),
    "earlier-beacon": ("وقت الخادم كما سمعه الهاتف في تشغيل سابق", "the server's time as the phone heard it in an earlier app session"),
    "earlier-frame": ("رسالة سابقة من نفس الهاتف", "an earlier message of the same phone"),
    "clock-alone": ("ساعة الهاتف ووقت الوصول فقط", "the phone's clock and the receipt alone"),
    "post": ("إسناد الفصل", "a post"),
    "delegation": ("تفويض", "a delegation"),
    "release": ("اعتماد شخص آخر", "another person's release"),
    "unknown-pupil": ("السجل غير موجود في قائمة الفصل لذلك اليوم", "the record is not on that day's list"),
    "out-of-scope": ("الفصل غير مُسند إلى صاحب التسجيل في ذلك الوقت", "its author had no right to the class then"),
    "revoked": ("تم إنهاء حق صاحب التسجيل أو هاتفه قبل الوصول", "the author or phone was revoked before it came"),
    "no-receipt": ("لا يوجد إيصال يبيّن صاحبه", "no receipt says whose it is"),
    "window-closed": ("طلب تعديل ينتظر قرارًا", "an adjustment that waits for a decision"),
    "adjustment-locked": ("طلب تعديل بعد انتهاء المهلة", "an adjustment asked for too late"),
    "adjustment-rejected": ("طلب تعديل مرفوض", "an adjustment that was rejected"),
    "pending": ("لم يصل بعد ما بُني عليه", "what it builds on has not come yet"),
    "inconsistent": ("يتعارض مع ما بُني عليه", "it contradicts what it builds on"),
    "equivocation": ("تغيير آخر يحمل نفس الرقم", "another change has the same number"),
    "waiting": ("في انتظار القرار", "waiting for a decision"),
    "approved": ("تم الاعتماد", "approved"),
    "rejected": ("تم الرفض", "rejected"),
    "locked": ("القرار للإدارة المركزية", "only the central office can decide"),
    "school": ("المدرسة", "the school"),
    "central": ("الإدارة المركزية", "the central office"),
    "author": ("صاحب القرار هو صاحب الطلب", "whoever decided had asked for it"),
    "superseded-decision": ("يوجد قرار لاحق أو أعلى", "a later or higher decision stands"),
    "no-reference": ("لا يوجد مستند", "no reference"),
    "too-late": ("القرار بعد انتهاء المهلة", "it was decided after the clock had run out"),
    "recorded": ("تسجيل", "recorded"),
    "amended": ("تعديل", "amended"),
    "withdrawn": ("سحب", "withdrawn"),
    "adjusted": ("بعد تعديل معتمد", "after an approved adjustment"),
    "calendar": ("المدرسة مغلقة في ذلك اليوم", "the school was closed that day"),
    "clock": ("ساعة الهاتف غير مضبوطة", "the phone's clock was wrong"),
    "future": ("السجل ليوم لم يبدأ", "the day had not begun"),
    "merged-record": ("سجلان مدمجان", "merged records"),
    "released": ("باعتماد شخص آخر", "released by another person"),
    "ruled": ("بقرار جماعي", "by a bulk operation"),
    "settled-by-person": ("فصل فيه شخص", "settled by a person"),
    "disputed": ("علامتان مختلفتان", "in dispute"),
    "weekend": ("عطلة أسبوعية", "weekend"),
    "act:adjustment-approve": ("اعتماد طلب تعديل", "an adjustment approved"),
    "act:adjustment-reject": ("رفض طلب تعديل", "an adjustment rejected"),
    "act:bulk-apply": ("تطبيق قرار جماعي", "a bulk operation applied"),
    "act:bulk-undo": ("التراجع عن قرار جماعي", "a bulk operation taken back"),
    "act:calendar": ("قرار في التقويم", "a decision about the calendar"),
    "act:delegate": ("تفويض مؤقت", "a delegation"),
    "act:delegation-end": ("إنهاء تفويض", "a delegation ended"),
    "act:dispute-settle": ("الفصل بين علامتين مختلفتين", "a dispute settled"),
    "act:pupil-merge": ("دمج سجلين", "two records merged"),
    "act:pupil-merge-undo": ("التراجع عن دمج سجلين", "a merge taken back"),
    "act:release": ("اعتماد علامات محتجزة", "a held change released"),
    "act:release-undo": ("التراجع عن اعتماد علامات محتجزة", "a release taken back"),
    "act:revoke": ("إيقاف هاتف", "a phone revoked"),
    "act:unrevoke": ("إعادة السماح لهاتف", "a phone heard again"),
}  # fmt: skip

TEXTS: Mapping[str, Words] = {
    "on-roster": ("السجل {register}: التلميذ {pupil} في قائمة الفصل لذلك اليوم (إصدار القائمة {version}).",
                  "Register {register}: {pupil} is on that day's list (roster version {version})."),
    "not-on-roster": ("السجل {register}: التلميذ {pupil} ليس في قائمة الفصل لذلك اليوم، فلا إجابة رسمية له هنا حتى تصل القائمة.",
                      "Register {register}: {pupil} is not on that day's list, so there is no official answer here until it comes."),
    "alias": ("السجل {alias} مدمج في السجل {canonical}: علاماته تُحتسب لنفس التلميذ، وتبقى كما كُتبت.",
              "Record {alias} is merged into {canonical}: its marks count for the same pupil and stay as they were made."),
    "open-day": ("التقويم: يوم دراسي. التسجيل في الموعد حتى {closes}، وطلب التعديل عن طريق المدرسة حتى نهاية {asked_until}.",
                 "Calendar: a school day. In time until {closes}; the school takes corrections until the end of {asked_until}."),
    "closed-day": ("التقويم: المدرسة مغلقة ({reason}). العلامات تبقى وتحمل بيانًا بذلك.",
                   "Calendar: the school is closed ({reason}). Marks stay and are labelled."),
    "no-session": ("الحصة لم تنعقد ({reason}): لا إجابة لأي تلميذ، والعلامات محفوظة.",
                   "The session did not take place ({reason}): no pupil has an answer, the marks are kept."),
    "no-mark": ("لم يسجّل أحد علامة لهذا التلميذ. «لم يُسجَّل» لا يعني الغياب.",
                "Nobody ever marked this pupil. Not taken does not mean absent."),
    "mark": (("سجّل {author} «{code}»{reason} على الجهاز {device}، بين {first} و{last} (الثقة {confidence}؛ الدليل: {evidence}). "
             "وصل إلى الخادم {received} برقم {offset}{relayed_ar}. النتيجة: {timeliness}."),
             ("{author} marked “{code}”{reason} on device {device}, between {first} and {last} (certainty {confidence}; by {evidence}). "
             "It reached the server at {received} as number {offset}{relayed_en}. That is {timeliness}.")),
    "unread-mark": ("يوجد «{code}» في تغيير {change} لم يدخل في السجل: {why}.",
                    "“{code}” in change {change} is not part of the register: {why}."),
    "right": ("حق التسجيل: {right}{delegation}.", "Right to mark: {right}{delegation}."),
    "released": ("سمح {by} باحتساب التغيير {change} في {at}. السبب: {reason}.",
                 "{by} let change {change} count at {at}. Reason: {reason}."),
    "counts": ("هذه العلامة قائمة: لم يكتب أحد فوقها.", "This mark stands: nobody has written over it."),
    "superseded": ("حلّت محلها علامة لاحقة ممن رآها (التغيير {over}).",
                   "A later mark by somebody who had seen it replaced it (change {over})."),
    "held": ("محفوظة ولا تُحتسب: {why}.", "Kept, and does not count: {why}."),
    "set-aside": ("محفوظة ولا تظهر: الحصة لم تنعقد.", "Kept, and not shown: the session did not take place."),
    "request": ("طلب تعديل من {author}: الطلب متاح حتى نهاية {asked_until}، والقرار للمدرسة حتى نهاية {decide_until}. الحالة: {stage}.",
                "An adjustment by {author}: to be asked until the end of {asked_until}, decided at school until the end of {decide_until}. It is: {stage}."),
    "decision": ("قرار {by} ({level}) في {at}: {stage}. السبب: {reason}. المستند: {reference}. هذا القرار هو المعمول به.",
                 "{by} ({level}) decided at {at}: {stage}. Reason: {reason}. Reference: {reference}. This decision counts."),
    "void-decision": ("قرار {by} ({level}) في {at}: {stage}. لا يُعمل به: {why}.",
                      "{by} ({level}) decided at {at}: {stage}. It does not count: {why}."),
    "original": ("القيد الأصلي محفوظ بجانب المعدَّل: {code}.", "The original entry is kept beside the corrected one: {code}."),
    "agreed": ("العلامات القائمة متفقة.", "The marks that stand agree."),
    "disputed": ("علامات مختلفة سُجّلت قبل أن يرى أحدهم علامة الآخر. كلها محفوظة، ولا خطأ من أحد. الإجابة مؤقتة، ولا تكون غيابًا إذا رأى أحد التلميذ.",
                 "Different marks by people who had not seen each other's. All are kept, nobody is at fault. The answer is provisional, and never absent where somebody saw the pupil."),
    "settled": ("فصل {by} في الأمر في {at}: علامة التغيير {chosen}.", "{by} settled it at {at}: the mark of change {chosen}."),
    "void-choice": ("فصل {by} في الأمر في {at}، ثم تغيّرت العلامات: لم يعد يُعمل به.",
                    "{by} settled it at {at}, but the marks have changed since: it no longer counts."),
    "ruled": ("قرار جماعي رقم {bulk} من {by} في {at}: {code}. العلامة محفوظة بجانبه.",
              "Bulk operation {bulk} by {by} at {at}: {code}. The mark is kept beside it."),
    "void-ruling": ("قرار جماعي رقم {bulk} من {by} في {at}: لا يُعمل به، لأن العلامات تغيّرت بعده أو لأنه لا يغيّر ما رآه أحد.",
                    "Bulk operation {bulk} by {by} at {at} does not count: the marks changed after it, or it says what nobody saw."),
    "answer": ("الإجابة الرسمية: {code}{reason}. {labels_ar}", "The official answer: {code}{reason}. {labels_en}"),
    "no-answer": ("لا إجابة رسمية لهذا التلميذ في هذا السجل.", "There is no official answer for this pupil in this register."),
    "told": ("أُرسل إلى الأنظمة الأخرى برقم {revision} في {at}: {kind}، {code}.",
             "Told downstream as revision {revision} at {at}: {kind}, {code}."),
    "untold": ("لم يُرسل شيء عن هذا التلميذ إلى الأنظمة الأخرى.", "Nothing was told downstream about this pupil."),
    "audit": ("سجل القرارات، السطر {id}: {act} من {actor} في {at}. السبب: {reason}.",
              "Audit row {id}: {act} by {actor} at {at}. Reason: {reason}."),
    "dead-letter": ("التغيير رقم {offset} لم تتمكن آلة من قراءته ({why}) وهو محفوظ.",
                    "Change number {offset} could not be processed ({why}); it is kept."),
    "unsettled": ("يوجد ما وصل ولم يدخل بعد في السجل الرسمي المحفوظ؛ ما سبق هو ما سيكون.",
                  "Something has come that the stored register does not hold yet; the above is what it will say."),
}  # fmt: skip

_JOINTS: Words = ("، ", ", ")


def word(value: str, language: int) -> str:
    """A slug in words; what has none stays as it is (reason slugs of marks, ids, acts of the audit trail)."""
    return WORDS[value][language] if value in WORDS else value.removeprefix("act:")


def say(code: str, facts: Mapping[str, Any], shown: Mapping[str, str]) -> Words:
    """The sentence of a step.

    Args:
        code: Which.
        facts: What it names; slugs are put in words, lists joined.
        shown: Fields that stand as they are.
    """
    arabic, english = (
        TEXTS[code][language].format_map({name: _said(value, language) for name, value in facts.items()} | dict(shown))
        for language in (0, 1)
    )
    return arabic.strip(), english.strip()


def _said(value: Any, language: int) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return _JOINTS[language].join(_said(one, language) for one in value)
    return word(str(value), language)


def parts(values: list[str], language: int) -> str:
    """Labels in words."""
    return f"{_said(values, language)}." if values else ""
