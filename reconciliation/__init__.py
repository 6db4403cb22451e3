"""The rules: pure functions from what was seen to what is official. Imports clientcore's pure words only."""
