"""The school system: rosters come from it, terminations at once, and attendance goes back to it."""
