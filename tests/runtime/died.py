"""What stands in place of the end of a process; the fixture `died` puts it there."""


class DiedError(BaseException):
    """In place of the end of the process: no `except Exception` of the product holds it."""
