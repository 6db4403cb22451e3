"""A real server over a real SQLite file, and a small scripted phone, for the server's tests."""
