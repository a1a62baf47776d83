"""What goes wrong, in one line that names the cloud and the command that helps."""

from __future__ import annotations

from typing import Any

from keystoneauth1 import exceptions


def one_line(text: object) -> str:
    """`text` without control characters, so that nothing in it can move a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


class BrokerError(exceptions.AuthorizationFailure):  # type: ignore[misc, unused-ignore]
    """No token could be had: `CLOUD: what failed (remedy: run: COMMAND)`."""

    def __init__(
        self,
        detail: str,
        *,
        cloud: str | None = None,
        code: str = "internal",
        remedy: str | None = None,
        request_id: str | None = None,
        http_status: int | None = None,
        retry_after: int | None = None,
    ) -> None:
        #: Keystone's own status where it is busy or broken, and the seconds that it wants to be left alone.
        self.http_status, self.retry_after = http_status, retry_after
        self.detail = one_line(detail)
        self.cloud = cloud and one_line(cloud)
        self.code = code
        self.remedy = remedy and one_line(remedy)
        self.request_id = request_id and one_line(request_id)
        super().__init__(self._text())

    def named(self, cloud: str) -> BrokerError:
        """The same of `cloud`, unless it names one already."""
        if self.cloud:
            return self
        detail = self.detail.removeprefix(f"{cloud}: ")
        return BrokerError(detail, cloud=cloud, **self._more())

    def _more(self) -> dict[str, Any]:
        names = ("code", "remedy", "request_id", "http_status", "retry_after")
        return {name: getattr(self, name) for name in names}

    def _text(self) -> str:
        text = f"{self.cloud}: {self.detail}" if self.cloud else self.detail
        if self.request_id and self.request_id not in text:
            text += f" [{self.request_id}]"
        if self.remedy:
            run = "run: " if self.remedy.startswith("ksb ") else ""
            text += f" (remedy: {run}{self.remedy})"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        """Survives pickling, as Ansible and multiprocessing do to exceptions."""
        return _rebuild, (self.detail, self.cloud, self._more())


def _rebuild(detail: str, cloud: str | None, more: dict[str, Any]) -> BrokerError:
    return BrokerError(detail, cloud=cloud, **more)


def from_problem(problem: object, *, cloud: str | None, status: int) -> BrokerError:
    """Turn the broker's problem document (RFC 9457) into an exception."""

    def text(key: str) -> str | None:
        value = problem.get(key) if isinstance(problem, dict) else None
        return value if isinstance(value, str) and value else None

    def number(key: str) -> int | None:
        value = problem.get(key) if isinstance(problem, dict) else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    detail = text("detail")
    if detail is None:
        return BrokerError(
            f"the agent answered with status {status} and no reason",
            cloud=cloud,
            remedy="ksb agent stop, so that the installed version starts",
        )
    return BrokerError(
        detail,
        cloud=text("cloud") or cloud,
        code=text("code") or "internal",
        remedy=text("remedy"),
        request_id=text("request_id"),
        http_status=number("status") if text("code") == "keystone-error" else None,
        retry_after=number("retry_after"),
    )
