"""A command that fails as it should."""


def fails(done, *expected):
    """One line that starts with `error: ` and holds what was expected."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode not in (0, 70), done.stderr
    assert "Traceback" not in done.stderr
    assert len(errors) == 1, done.stderr
    assert done.stdout == ""
    for text in expected:
        assert text in errors[0]
