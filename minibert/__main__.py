"""`python -m minibert` is the same as `minibert`."""

from .cli import app

app(prog_name="minibert")
