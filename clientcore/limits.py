"""Every agreed maximum of the protocol, with its reason. Units are in the names.

The sizes of the change profile were found by measurement: within them, no input made a parser or either Automerge core
misbehave, and every real register fits many times over (a register of 40 marks takes about 700 plain bytes).
"""

CHUNK_BYTES_MAX = 16_384  # one change, compressed or not; a register of 80 pupils needs 1.5 kB
OPS_PER_CHANGE_MAX = 256  # the largest class seen has 120 pupils; plus `~` keys
DEPS_MAX = 32  # heads of a register: at most the devices that marked it at once
ACTORS_MAX = 32
PREDS_PER_OP_MAX = 16
COUNTER_MAX = 1 << 31
TIME_S_MAX = 1 << 45  # Automerge stores signed seconds; beyond this the JS core loses precision

KEY_BYTES_MAX = 36
VALUE_BYTES_MAX = 48

FRAME_BYTES_MAX = 16_384  # fits the send buffer of a 2G phone; silence, not reset, is the usual death there
CHANGES_PER_FRAME_MAX = 512
FRAMES_PER_REQUEST_MAX = 32
SYNC_BODY_BYTES_MAX = 262_144
BUNDLE_BYTES_MAX = 1_048_576
ENROL_BODY_BYTES_MAX = 1_024
PAYLOAD_BYTES_MAX = 65_536  # one pull round; `more` asks for the next
HAVE_BYTES_MAX = 16_000  # 2,000 hashes of 8 bytes: 180 school days of several classes

MSGPACK_DEPTH_MAX = 8
MSGPACK_ARRAY_MAX = 4_096

BODY_DEADLINE_S = 30
REQUEST_DEADLINE_S = 90  # 2G: an 8 kB upload took up to 60 s on the measured profiles
BACKOFF_BASE_S = 5.0
BACKOFF_CAP_S = 900.0
CONFIRM_AFTER_S = 3.0  # the settle stage needs less than a second; one more round trip brings the confirmation
SEAL_IDLE_S = 20.0
