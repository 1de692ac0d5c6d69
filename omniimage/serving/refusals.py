"""Why a request is not answered, in words and as HTTP has it."""

from collections.abc import Mapping

from omniimage.errors import UserError


class Refused(UserError):
  """What was asked for, what can be and what to do, in one line that holds nothing of this machine.

  Attributes:
    status: of HTTP.
    field: of the request that is to be changed, if it is one.
    headers: that go with the answer.
  """

  def __init__(self, message: str, status: int = 400, field: str | None = None, headers: Mapping[str, str] = {}):
    super().__init__(message)
    self.status, self.field, self.headers = status, field, dict(headers)


class Busy(Refused):
  """There is no place in the queue."""

  def __init__(self, waiting: int, seconds: int):
    super().__init__(
      f"{waiting} answers are waited for already; ask again in {seconds} s", 429, headers={"Retry-After": str(seconds)}
    )


class Left(Exception):
  """The client has gone, and nobody is to be answered."""


KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}  # as OpenAI's clients know them


def as_json(message: str, status: int, field: str | None = None) -> dict:
  """The body of an answer that is an error, in the form of OpenAI's interface."""
  kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
  return {"error": {"message": message, "type": kind, "param": field, "code": status}}
