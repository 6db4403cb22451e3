"""The server's store: a small database port, its SQLite, and the operations on top."""
