"""The meeting point: takes frames, keeps them, settles them, hands clean events on. Does I/O, holds no rule."""
