"""The Python codec keeps to the vectors in tests/vectors (its README says what each file demands)."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from clientcore.change import Op, actor_of, encode, is_actor_of, parse
from clientcore.errors import ChangeRefused, FrameRefused
from clientcore.exchange import read_answer, read_payload, sign_answer
from clientcore.frame import Ask, ClockEvidence, FramedChange, parse_frame, read_bundle, seal_frame, write_bundle
from clientcore.history import merge
from clientcore.keys import device_id, short_number, verify
from clientcore.wire import pack, unpack
from tests.support.fixed import PHONE, SERVER
from tests.vectors.cases.answers import answers
from tests.vectors.cases.histories import shown
from tests.vectors.cases.wire import untagged
from tests.vectors.produce import HERE, differing


def load(name: str) -> Any:
    return json.loads((HERE / name).read_text("utf-8"))


def rows(name: str, part: str | None = None) -> list[Any]:
    found = load(name) if part is None else load(name)[part]
    return [pytest.param(row, id=row["name"]) for row in found]


def test_the_vectors_are_what_the_code_produces() -> None:
    """The JSON files in the repository are exactly what produce.py writes today."""
    assert differing() == []


def test_the_readme_names_every_file() -> None:
    """No vector file is undocumented."""
    text = (HERE / "README.md").read_text("utf-8")
    assert [path.name for path in Path(HERE).glob("*.json") if f"`{path.name}`" not in text] == []


@pytest.mark.parametrize("row", rows("changes.json"))
def test_a_change_is_built_and_read_as_the_vector_says(row: dict[str, Any]) -> None:
    """Encoding the fields gives the chunk; parsing either form of the chunk gives the fields."""
    fields = row["fields"]
    ops = [
        Op(key=key, value=value, preds=tuple((counter, bytes.fromhex(actor)) for counter, actor in preds))
        for key, value, preds in fields["ops"]
    ]
    built = encode(
        actor=bytes.fromhex(fields["actor"]),
        seq=fields["seq"],
        start_op=fields["start_op"],
        time_s=fields["time_s"],
        deps=[bytes.fromhex(dep) for dep in reversed(fields["deps"])],
        ops=ops,
    )
    assert (built.chunk.hex(), built.hash.hex()) == (row["chunk"], row["hash"])
    assert parse(bytes.fromhex(row["chunk"])) == parse(bytes.fromhex(row["deflated"])) == built
    assert built.ops == tuple(ops)
    assert [dep.hex() for dep in built.deps] == fields["deps"]


@pytest.mark.parametrize("row", rows("refused_chunks.json"))
def test_a_bad_chunk_is_refused_with_the_code_of_the_vector(row: dict[str, Any]) -> None:
    """Every chunk of refused_chunks.json is refused, and for the reason given."""
    with pytest.raises(ChangeRefused) as refusal:
        parse(bytes.fromhex(row["chunk"]))
    assert refusal.value.code == row["code"]


@pytest.mark.parametrize("row", rows("histories.json"))
def test_a_set_of_changes_gives_the_history_of_the_vector_in_any_order(row: dict[str, Any]) -> None:
    """Five orders, with duplicates, all give the recorded heads, marks and verdicts."""
    changes = [parse(bytes.fromhex(chunk)) for chunk in row["chunks"]]
    expected = {key: row[key] for key in shown(merge([]))}
    for seed in range(5):
        order = random.Random(seed)
        shuffled = changes + order.sample(changes, order.randint(0, len(changes)))
        order.shuffle(shuffled)
        assert shown(merge(shuffled)) == expected


def test_the_histories_show_every_reason_a_change_may_be_inconsistent() -> None:
    """The vectors would notice a reason that is missing in the twin."""
    reasons = {reason for row in load("histories.json") for reason in row["inconsistent"].values()}
    assert reasons == {
        "seq", "own previous change not in its past", "start_op", "predecessor unknown", "delete erases the mark",
    }  # fmt: skip


def ask_of(row: dict[str, Any]) -> Ask:
    """The ask that a vector spells in hex."""
    fields: dict[str, Any] = {
        name: bytes.fromhex(value) if name in ("nonce", "cursor", "have") and value is not None else value
        for name, value in row.items()
    }
    return Ask(**fields)


@pytest.mark.parametrize("row", rows("frames.json", "accepted"))
def test_a_frame_is_built_and_read_as_the_vector_says(row: dict[str, Any]) -> None:
    """The fields give the signed bytes; the frame parses to the fields and its signature is its owner's only."""
    fields = row["fields"]
    clock, ask = fields["clock"], fields["ask"]
    built = seal_frame(
        PHONE,
        env=fields["env"],
        school=fields["school"],
        device=bytes.fromhex(fields["device"]),
        number=fields["number"],
        prev=bytes.fromhex(fields["prev"]),
        clock=ClockEvidence(
            wall_ms=clock["wall_ms"],
            mono_ms=clock["mono_ms"],
            session=bytes.fromhex(clock["session"]),
            beacon=None if clock["beacon"] is None else tuple(clock["beacon"]),
        ),
        changes=[
            FramedChange(register=register, delegation=delegation, chunk=bytes.fromhex(chunk))
            for register, delegation, chunk in fields["changes"]
        ],
        ask=None if ask is None else ask_of(ask),
    )
    assert (built.signed.hex(), built.signature.hex(), built.hash.hex()) == (
        row["signed"], row["signature"], row["hash"],
    )  # fmt: skip
    assert parse_frame(built.raw) == built
    assert built.is_signed_by(PHONE.public)
    assert not built.is_signed_by(SERVER.public)


@pytest.mark.parametrize("row", rows("frames.json", "refused"))
def test_a_bad_frame_is_refused_with_the_code_of_the_vector(row: dict[str, Any]) -> None:
    """Every frame of the refused list is refused for the reason given."""
    with pytest.raises(FrameRefused) as refusal:
        parse_frame(bytes.fromhex(row["frame"]))
    assert refusal.value.code == row["code"]


@pytest.mark.parametrize("row", rows("frames.json", "bundles"))
def test_a_bundle_gives_its_whole_frames(row: dict[str, Any]) -> None:
    """A file, cut or not, gives the frames of the vector; writing them gives the file back."""
    bundle = read_bundle(bytes.fromhex(row["file"]))
    assert [frame.hex() for frame in bundle.frames] == row["frames"]
    assert bundle.truncated == row["truncated"]
    assert bundle.truncated or write_bundle(bundle.frames).hex() == row["file"]


@pytest.mark.parametrize("row", rows("frames.json", "refused_bundles"))
def test_a_file_that_is_no_bundle_is_refused(row: dict[str, Any]) -> None:
    """Other files and impossible lengths have their codes."""
    with pytest.raises(FrameRefused) as refusal:
        read_bundle(bytes.fromhex(row["file"]))
    assert refusal.value.code == row["code"]


@pytest.mark.parametrize("row", rows("wire.json", "accepted"))
def test_a_value_has_one_spelling(row: dict[str, Any]) -> None:
    """Packing gives the bytes of the vector and unpacking gives the value back."""
    value = untagged(row["value"])
    packed = pack(value)
    if "bytes" in row:
        assert packed.hex() == row["bytes"]
    else:
        assert (len(packed), hashlib.sha256(packed).hexdigest()) == (row["length"], row["sha256"])
    assert unpack(packed, bytes_max=load("wire.json")["bytes_max"]) == value


@pytest.mark.parametrize("row", rows("wire.json", "refused"))
def test_bytes_that_are_no_value_are_refused(row: dict[str, Any]) -> None:
    """Every row of the refused list has its code."""
    with pytest.raises(FrameRefused) as refusal:
        unpack(bytes.fromhex(row["bytes"]), bytes_max=load("wire.json")["refused_bytes_max"])
    assert refusal.value.code == row["code"]


def test_device_ids_short_numbers_and_actors_follow_from_keys() -> None:
    """All three derivations give the vectors."""
    found = load("keys.json")
    for row in found["devices"]:
        key = bytes.fromhex(row["public_key"])
        assert (device_id(key).hex(), short_number(key)) == (row["device"], row["short"])
    for row in found["actors"]:
        device, nonce, actor = (bytes.fromhex(row[name]) for name in ("device", "nonce", "actor"))
        assert actor_of(device, nonce) == actor
        assert is_actor_of(actor, device)
        assert not is_actor_of(actor, bytes(16))


@pytest.mark.parametrize("row", rows("keys.json", "signatures"))
def test_a_signature_holds_or_not_as_the_vector_says(row: dict[str, Any]) -> None:
    """Both spellings of one signature hold; anything else does not."""
    public_key, message, signature = (bytes.fromhex(row[name]) for name in ("public_key", "message", "signature"))
    assert verify(public_key, message, signature) is row["valid"]


@pytest.mark.parametrize("row", rows("answers.json", "accepted"))
def test_an_answer_is_built_and_read_as_the_vector_says(row: dict[str, Any]) -> None:
    """Body, receipts and payload are those of the vector."""
    found = load("answers.json")
    body, request = bytes.fromhex(row["body"]), bytes.fromhex(found["request"])
    answer = dict(answers())[row["name"]]
    assert sign_answer(SERVER, answer) == body
    read = read_answer(body, server_key=bytes.fromhex(found["server_key"]), request=request).answer
    assert read == answer
    assert [
        entry if isinstance(entry, str) else [[verdict.kind, verdict.slug] for verdict in entry]
        for entry in read.receipts
    ] == row["receipts"]
    if row["name"] == "a payload":
        assert read.payload is not None
        assert [list(item) for item in read_payload(read.payload).items] == untagged(found["payload_items"])


@pytest.mark.parametrize("row", rows("answers.json", "refused"))
def test_what_is_not_our_servers_answer_is_refused(row: dict[str, Any]) -> None:
    """A top-up page, another server, another request: none is an answer."""
    found = load("answers.json")
    with pytest.raises(FrameRefused) as refusal:
        read_answer(
            bytes.fromhex(row["body"]),
            server_key=bytes.fromhex(found["server_key"]),
            request=bytes.fromhex(found["request"]),
        )
    assert refusal.value.code == row["code"]
