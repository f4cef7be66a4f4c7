"""A check that prints what held, or stops with what did not."""


def proved(what: str, holds: bool) -> None:
    """Print ``what``, or end the test with it."""
    if not holds:
        raise SystemExit(f"NOT SO: {what}")
    print(f"ok: {what}", flush=True)
