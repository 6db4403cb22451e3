"""`python -m clientcore`: the device's commands without the server's."""

from clientcore.cli import device

if __name__ == "__main__":
    device(prog_name="hudur-device")
