"""Bytes and round trips on the wire: the first push of a register of 40 and a correction of three marks.

The client writes its HTTP request by hand, with the headers any client must send, so that every byte is counted; what a
browser adds is printed by `python -m bench phone`.
"""

from __future__ import annotations

import socket

from rich.console import Console
from rich.table import Table

from bench.site import Phone, Site, site
from clientcore.change import Change
from clientcore.exchange import DURABLE, MEDIA_TYPE, read_answer, write_sync


def exchange(place: Site, phone: Phone, register: str, change: Change) -> tuple[int, int, int, int, int]:
    """Push one change on a fresh connection: body up, body down, HTTP up, HTTP down, round trips after connecting."""
    body = write_sync([phone.frame([(register, change)]).raw])
    head = (
        f"POST /v1/sync HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", place.port), timeout=30) as connection:
        connection.sendall(head + body)
        reply = b""
        while piece := connection.recv(65_536):
            reply += piece
    answer_body = reply.partition(b"\r\n\r\n")[2]
    signed = read_answer(answer_body, server_key=phone.enrolled.server_key, request=body)
    if [verdict.kind for entry in signed.answer.receipts for verdict in entry] != [DURABLE]:
        raise SystemExit(f"not durable: {signed.answer.receipts}")
    phone.nonce = signed.answer.nonce
    return len(body), len(answer_body), len(head) + len(body), len(reply), 1


def main() -> None:
    """Print the table."""
    with site(phones=1, settle=False) as place:
        phone = place.enrol(seed=1)
        room, pupils = next((room, pupils) for room, pupils in place.classes.items() if len(pupils) == 40)
        register = f"{room}/{place.today}/day"
        first = phone.register(pupils)
        rows = [
            ("first push, 40 marks", exchange(place, phone, register, first), (560, 200, 1_000)),
            ("correction, 3 marks", exchange(place, phone, register, phone.correction(first)), (370, 200, 800)),
        ]
    table = Table(title="Wire: one register pushed, durable and receipted (bytes)")
    for heading in (
        "",
        "body up",
        "goal",
        "body down",
        "goal",
        "with headers, both ways",
        "goal",
        "trips after connect",
    ):
        table.add_column(heading, justify="right" if heading else "left")
    for name, (up, down, http_up, http_down, trips), (goal_up, goal_down, goal_all) in rows:
        cells = (up, f"≤ {goal_up}", down, f"≤ {goal_down}", http_up + http_down, f"≤ {goal_all}", trips)
        table.add_row(name, *map(str, cells))
    console = Console(width=120)
    console.print(table)
    console.print(f"Pupil ids: {pupils[0]} … {pupils[-1]} (their length and likeness decide; see docs/decisions/0004).")
