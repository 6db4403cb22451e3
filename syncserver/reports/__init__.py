"""Reports, printed sheets and exports: what leaves the server in files, and what a report reads. No rule is here."""
