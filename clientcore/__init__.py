"""The device, and the words both sides share. Imports none of our other packages."""
