"""`GET /status` in Arabic and English and `GET /v1/status`: the same facts, written at most once a second.

Whoever asks gets bytes from memory: this page must stay up when nothing else does. It needs no script, no second
request and no other host, and reads well on the oldest phone we know of.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from functools import partial
from html import escape
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response

from syncserver.config import Config
from syncserver.ports import ServerPorts
from syncserver.status import Day, Now, Status

_FRESH_MS = 1_000
_MINUTE_MS = 60_000
_BASE = {"cache-control": "public, max-age=10"}
_STYLE = (
    "body{font:16px/1.6 sans-serif;max-width:40em;margin:0 auto;padding:12px;color:#1b1b1b;background:#fff}"
    "h1{font-size:1.2em;margin:0}h2{font-size:1em;margin:1.2em 0 .3em}"
    ".now{border-inline-start:6px solid;-webkit-border-start:6px solid;padding:8px 12px;background:#f4f4f4}"
    ".accepting{border-color:#1b6e3c}.shedding,.late{border-color:#8a5a00}.failing{border-color:#a01818}"
    ".unknown{border-color:#666}table{border-collapse:collapse;width:100%;font-size:.85em}"
    "th,td{padding:4px;text-align:center;border-bottom:1px solid #ddd;font-weight:400}"
    "th:first-child{text-align:start}h2+table th:first-child{white-space:nowrap}thead th{font-size:.9em;color:#444}"
    "svg{display:block;width:100%;height:6px;background:#eee}.n{color:#444;font-size:.85em}a{color:#0b4f9e}"
)
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_COLOURS = {"good": "#2f8f57", "shed": "#e0a030", "delayed": "#c07010", "failed": "#c03030", "unknown": "#bbb"}
_ARABIC_DIGITS = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")

_SAFE_AR = "العمل محفوظ على الهاتف، ويُعاد إرساله تلقائيًا."
_SAFE_EN = "The work is safe on the phone and is sent again by itself."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """One language."""

    lang: str
    dir: str
    title: str
    other: str
    states: Mapping[str, str]
    waits: str
    commit: str
    none: str
    never: str
    unknown: str
    at: str
    history: str
    heads: tuple[str, str, str, str, str]
    notes: tuple[str, ...]
    weekdays: tuple[str, ...]
    months: tuple[str, ...]


_AR = _Words(
    lang="ar",
    dir="rtl",
    title="حضور: حالة الخادم",
    other='<a href="?lang=en" lang="en" dir="ltr">English</a>',
    states={
        "accepting": "الخادم يعمل ويستقبل السجلات.",
        "shedding": f"الخادم مشغول الآن، وبعض السجلات تصل بعد قليل. {_SAFE_AR}",
        "late": "السجلات تصل وتُحفظ، لكن احتسابها يتأخر الآن.",
        "failing": f"لا يستطيع الخادم أن يحفظ الآن. {_SAFE_AR}",
        "unknown": "لا يوجد قياس في هذه اللحظة.",
    },
    waits="أقدم سجل ينتظر الاحتساب (بالدقائق)",
    commit="آخر حفظ ناجح (قبل كم دقيقة)",
    none="لا شيء ينتظر",
    never="لا شيء منذ بدء التشغيل",
    unknown="غير معروف",
    at="وقت القياس",
    history="آخر ١٤ يومًا (بالدقائق)",
    heads=("اليوم", "انشغال", "تأخير", "تعذّر الحفظ", "بلا قياس"),
    notes=(
        "السجل الذي لم يصل بعد لا يعني غياب أي تلميذ.",
        "انشغال: طُلب من بعض الهواتف أن تعيد الإرسال بعد قليل. تأخير: احتُسبت السجلات بعد أكثر من ٥ دقائق.",
        "بلا قياس: لم يكن الخادم يعمل أو لم يُقَس شيء، ولا نعرف كيف كان الحال.",
    ),
    weekdays=("الاثنين", "الثلاثاء", "الأربعاء", "الخميس", "الجمعة", "السبت", "الأحد"),
    months=(
        "يناير", "فبراير", "مارس", "أبريل", "مايو", "يونيو", "يوليو", "أغسطس", "سبتمبر", "أكتوبر", "نوفمبر", "ديسمبر",
    ),
)  # fmt: skip
_EN = _Words(
    lang="en",
    dir="ltr",
    title="Hudur: server status",
    other='<a href="?lang=ar" lang="ar" dir="rtl">العربية</a>',
    states={
        "accepting": "The server is running and takes registers.",
        "shedding": f"The server is busy, some registers arrive a little later. {_SAFE_EN}",
        "late": "Registers arrive and are kept, but counting them takes longer than usual.",
        "failing": f"The server cannot store anything at this moment. {_SAFE_EN}",
        "unknown": "Nothing is measured at this moment.",
    },
    waits="Oldest register that waits to be counted (minutes)",
    commit="Last stored successfully (minutes ago)",
    none="nothing waits",
    never="nothing since the start",
    unknown="not known",
    at="Measured at",
    history="The last 14 days (minutes)",
    heads=("Day", "Busy", "Delayed", "Store failed", "Not measured"),
    notes=(
        "A register that has not arrived never means that a pupil is absent.",
        "Busy: some phones were asked to send again later. Delayed: registers were counted after more than 5 minutes.",
        "Not measured: the server was not running or nothing was measured; we do not know how it was.",
    ),
    weekdays=("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    months=("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


@dataclass(frozen=True, slots=True)
class _Written:
    """One representation, ready to send."""

    body: bytes
    headers: dict[str, str]


class StatusPage:
    """The two routes."""

    def __init__(self, config: Config, ports: ServerPorts, status: Status) -> None:
        self._zone, self._clock, self._status = ZoneInfo(config.zone), ports.clock, status
        self._written: dict[str, _Written] = {}
        self._written_ms = 0

    async def html(self, request: Request) -> Response:
        """`/status`: `?lang=`, else Accept-Language, else Arabic."""
        lang = request.query_params.get("lang")
        if lang not in ("ar", "en"):
            lang = preferred(request.headers.get("accept-language", ""))
        return self._reply(request, lang)

    async def json(self, request: Request) -> Response:
        """`/v1/status`."""
        return self._reply(request, "json")

    def _reply(self, request: Request, kind: str) -> Response:
        now_ms = self._clock.mono_ms()
        if not self._written or not 0 <= now_ms - self._written_ms < _FRESH_MS:
            self._write()
            self._written_ms = now_ms
        written = self._written[kind]
        if written.headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={k: v for k, v in written.headers.items() if k != "content-type"})
        return Response(written.body, headers=written.headers)

    def _write(self) -> None:
        now, days = self._status.look(), self._status.days()
        pages = {words.lang: _page(words, now, days, self._zone).encode() for words in (_AR, _EN)}
        self._written = {
            lang: _written(body, "text/html; charset=utf-8", vary="accept-language", content_security_policy=_POLICY)
            for lang, body in pages.items()
        }
        self._written["json"] = _written(json.dumps(document(now, days)).encode(), "application/json")


def _written(body: bytes, content_type: str, **more: str) -> _Written:
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    return _Written(body, {"content-type": content_type, "etag": etag, **_BASE, **headers})


def preferred(accept_language: str) -> str:
    """`ar` or `en`, whichever is liked better; Arabic where neither is named."""
    best, found = 0.0, "ar"
    for part in accept_language.split(","):
        name, _, quality = part.strip().lower().partition(";q=")
        try:
            weight = float(quality or 1)
        except ValueError:
            continue
        if name[:2] in ("ar", "en") and weight > best:
            best, found = weight, name[:2]
    return found


def document(now: Now, days: list[Day]) -> dict[str, object]:
    """What `/v1/status` tells."""
    return {
        "state": now.state,
        "measured_at": now.at_ms // 1000,
        "shedding": now.sheds,
        "store_failing": now.fails,
        "delay_s": None if now.delay_ms is None else now.delay_ms // 1000,
        "last_commit_at": None if now.last_commit_ms is None else now.last_commit_ms // 1000,
        "days": [{**asdict(day), "unknown": day.unknown} for day in days],
    }


def _page(words: _Words, now: Now, days: list[Day], zone: ZoneInfo) -> str:
    say = partial(_say, words)
    waits = words.unknown if now.delay_ms is None else words.none
    if now.delay_ms:
        waits = say(now.delay_ms // _MINUTE_MS)
    ago_ms = None if now.last_commit_ms is None else max(0, now.at_ms - now.last_commit_ms)
    commit = words.never if ago_ms is None else say(ago_ms // _MINUTE_MS)
    at = say(f"{datetime.fromtimestamp(now.at_ms / 1000, tz=zone):%H:%M}")
    heads = "".join(f"<th>{head}" for head in words.heads)
    return (
        f'<!doctype html><html lang="{words.lang}" dir="{words.dir}"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{words.title}</title><style>{_STYLE}</style>'
        f'<h1>{words.title}</h1><p class="n">{words.other}</p>'
        f'<p class="now {now.state}">{words.states[now.state]}</p>'
        f"<table><tr><th>{words.waits}<td>{waits}<tr><th>{words.commit}<td>{commit}"
        f"<tr><th>{words.at}<td>{at}</table>"
        f"<h2>{words.history}</h2><table><thead><tr>{heads}<tbody>"
        + "".join(_row(words, day) for day in days)
        + "</table>"
        + "".join(f'<p class="n">{escape(note)}</p>' for note in words.notes)
    )


def _row(words: _Words, day: Day) -> str:
    say, on = partial(_say, words), date.fromisoformat(day.date)
    name = f"{words.weekdays[on.weekday()]} {say(on.day)} {words.months[on.month - 1]}"
    cells = "".join(f"<td>{say(count)}" for count in (day.shed, day.delayed, day.failed, day.unknown))
    return f"<tr><th>{name}{_bar(day)}{cells}"


def _bar(day: Day) -> str:
    """The day's minutes by kind, the numbers beside it in a picture; a minute of two kinds is drawn as the worse."""
    failed, bad = day.failed, day.measured - day.good
    delayed = min(day.delayed, bad - failed)
    parts = {"good": day.good, "shed": bad - failed - delayed, "delayed": delayed, "failed": failed,
             "unknown": day.unknown}  # fmt: skip
    drawn, x = "", 0
    for kind, width in parts.items():
        if width > 0:
            drawn += f'<path fill="{_COLOURS[kind]}" d="M{x} 0h{width}v9H{x}"/>'
            x += width
    return f'<svg viewBox="0 0 1440 9" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'


def _say(words: _Words, value: int | str) -> str:
    """In the language's digits."""
    return str(value).translate(_ARABIC_DIGITS) if words.lang == "ar" else str(value)
