# Access tokens from an OAuth 2.0 token endpoint (RFC 6749), by httpx on Trio.
#
# Guarantees. A provider asks one request at a time, however many connections, clients and pools wait for the answer. A
# token is kept until shortly before it expires, or until a mail server has refused it. No secret is in a repr, an error
# or a log, and none leaves in clear: the endpoint is https, or on this machine.
from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import httpx  # noqa: ASYNC127 - what a caller gives as http= is one of its clients
import trio

from trio_smtp import AuthenticationError, ConnectError, SMTPTimeoutError, Stage

REQUEST_TIMEOUT: Final = 30.0  # seconds for one request, of all connections that wait for it
KEEP_TIMEOUT: Final = 10.0  # seconds for the application to store a new refresh token
MAX_ANSWER: Final = 1 << 18  # octets of the endpoint's answer
MARGIN: Final = 60.0  # seconds before its end at which a token is not used any more, or
_SHARE: Final = 0.1  # so much of its life, if that is less
_DEFAULT_LIFE: Final = 300.0  # seconds, where the endpoint does not say (RFC 6749 §5.1 recommends that it does)
_MOST_LIFE: Final = 86400.0
_HERE: Final = ("localhost", "127.0.0.1", "::1")

_MICROSOFT: Final = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
_GOOGLE: Final = "https://oauth2.googleapis.com/token"

Keep: TypeAlias = Callable[[str], Awaitable[object]]


class _Provider:
    """Asks a token endpoint, and keeps what it says."""

    __slots__ = ("_asking", "_client_id", "_client_secret", "_ends", "_http", "_parameters", "_style", "_token", "_url")

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | None,
        scope: str | None,
        parameters: Mapping[str, str] | None,
        grant: Mapping[str, str],
        secret_in: Literal["body", "header"],
        http: httpx.AsyncClient | None,
    ) -> None:
        for name, value in (("token_url", token_url), ("client_id", client_id)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
        for name, optional in (("client_secret", client_secret), ("scope", scope)):
            if optional is not None and not isinstance(optional, str):
                raise TypeError(f"{name} must be a str or None, not {type(optional).__name__}")
        if http is not None and not isinstance(http, httpx.AsyncClient):
            raise TypeError(f"http must be an httpx.AsyncClient or None, not {http!r:.80}")
        parts = urlsplit(token_url)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)):
            raise ValueError("token_url must be an https URL: secrets are sent to it")
        if secret_in not in ("body", "header"):
            raise ValueError(f"secret_in must be 'body' or 'header', not {secret_in!r}")
        self._url = token_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._parameters = {**_further(parameters), **grant} | ({} if scope is None else {"scope": scope})
        self._style = secret_in
        self._http = http
        self._asking = trio.Lock()
        self._token = ""
        self._ends = 0.0  # in Trio's clock

    def __repr__(self) -> str:
        return f"<trio_smtp.oauth.{type(self).__name__} {self._client_id!r} at {urlsplit(self._url).hostname}>"

    async def __call__(self) -> tuple[str, float]:
        """The token, and the seconds for which it may be used: the one that is kept, or a new one.

        Raises:
            AuthenticationError: the endpoint refuses to give one.
            ConnectError, SMTPTimeoutError: it cannot be reached, or is not well: try again later.

        Cancellation: another caller that waits asks then.
        """
        async with self._asking:
            left = self._ends - trio.current_time()
            if not self._token or left <= 0:
                answer = await self._ask()
                self._token = _token_of(answer)
                left = _life_of(answer)
                self._ends = trio.current_time() + left
                await self._learn(answer)
            return self._token, left

    def forget(self, token: str) -> None:
        """A mail server has refused this token: do not give it again."""
        if token == self._token:
            self._token = ""

    async def _learn(self, answer: Mapping[str, Any]) -> None:
        """What else the endpoint has said."""

    async def _ask(self) -> Mapping[str, Any]:
        data = {**self._parameters}
        credentials: httpx.BasicAuth | None = None
        if self._style == "header" and self._client_secret is not None:  # RFC 6749 §2.3.1
            credentials = httpx.BasicAuth(self._client_id, self._client_secret)
        else:
            data["client_id"] = self._client_id
            if self._client_secret is not None:
                data["client_secret"] = self._client_secret
        with trio.move_on_after(REQUEST_TIMEOUT):
            if self._http is not None:
                return await self._post(self._http, data, credentials)
            async with httpx.AsyncClient(timeout=None, follow_redirects=False) as http:
                return await self._post(http, data, credentials)
        raise SMTPTimeoutError(f"no answer from {self._place} within {REQUEST_TIMEOUT:g} seconds", stage=Stage.AUTH)

    async def _post(
        self, http: httpx.AsyncClient, data: Mapping[str, str], credentials: httpx.BasicAuth | None
    ) -> Mapping[str, Any]:
        headers = {"Accept": "application/json"}
        body, status = bytearray(), 0
        try:
            with trio.CancelScope() as too_much:
                async with http.stream(
                    "POST", self._url, data=data, auth=credentials, headers=headers, follow_redirects=False
                ) as response:
                    status = response.status_code
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > MAX_ANSWER:
                            too_much.cancel()  # httpx's generators cannot be left in the middle in another way
        except (httpx.HTTPError, httpx.InvalidURL) as exc:  # whose text names the URL at most
            raise self._is_unwell(str(exc) or type(exc).__name__) from exc
        if len(body) > MAX_ANSWER:
            raise self._is_unwell(f"it answers with more than {MAX_ANSWER} octets")
        return self._read(status, bytes(body))

    def _read(self, status: int, body: bytes) -> Mapping[str, Any]:
        try:
            answer: Any = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            answer = {}
        if status == 200 and answer:
            found: Mapping[str, Any] = answer
            return found
        error = answer.get("error")
        if 400 <= status < 500 and status not in (408, 429):
            text = _printable(error, 100) or f"status {status}"
            if description := _printable(answer.get("error_description"), 500):
                text = f"{text}: {description}"
            raise AuthenticationError(f"{self._place} gives no token: {text}", stage=Stage.AUTH)
        raise self._is_unwell(f"it answers with status {status}" if status != 200 else "its answer is not JSON")

    def _is_unwell(self, why: str) -> ConnectError:
        return ConnectError(f"no token from {self._place}: {why}", stage=Stage.AUTH)

    @property
    def _place(self) -> str:
        return f"the token endpoint at {urlsplit(self._url).hostname}"


class ClientCredentials(_Provider):
    """Tokens for an application by itself (RFC 6749 section 4.4): the `token` of :class:`trio_smtp.OAuth`.

    Args:
        token_url: the token endpoint; https, unless it is on this machine.
        client_id: the application's.
        client_secret: the application's. Not shown by ``repr``.
        scope: what the token is to be good for.
        parameters: further ones of the request, such as ``audience``.
        secret_in: where the endpoint takes the secret: ``"body"`` or ``"header"`` (HTTP Basic).
        http: a client of yours for the requests, with its proxies and certificates; you close it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or the endpoint is not https.
    """

    __slots__ = ()

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        parameters: Mapping[str, str] | None = None,
        secret_in: Literal["body", "header"] = "body",
        http: httpx.AsyncClient | None = None,
    ) -> None:
        grant = {"grant_type": "client_credentials"}
        super().__init__(token_url, client_id, client_secret, scope, parameters, grant, secret_in, http)

    @classmethod
    def microsoft365(
        cls, tenant: str, client_id: str, client_secret: str, *, http: httpx.AsyncClient | None = None
    ) -> ClientCredentials:
        """For Exchange Online: the application has the permission ``SMTP.SendAsApp``, and access to the mailbox.

        Args:
            tenant: the directory's id or domain.
            client_id: the application's id.
            client_secret: the application's.
            http: as for the class.
        """
        return cls(
            _microsoft(tenant), client_id, client_secret, scope="https://outlook.office365.com/.default", http=http
        )


class RefreshToken(_Provider):
    """Tokens for a person who has agreed once (RFC 6749 section 6): the `token` of :class:`trio_smtp.OAuth`.

    An endpoint may give a new refresh token with each answer; it is used from then on.

    Args:
        token_url: the token endpoint; https, unless it is on this machine.
        client_id: the application's.
        refresh_token: what the person's agreement gave. Not shown by ``repr``.
        client_secret: the application's, if it has one. Not shown by ``repr``.
        scope: what the token is to be good for; by default what was agreed to.
        keep: an async callable that is given each new refresh token, to be stored. It has 10 seconds, also if the
            caller is cancelled meanwhile; what it raises goes to that caller.
        parameters: further ones of the request.
        secret_in: where the endpoint takes the secret: ``"body"`` or ``"header"`` (HTTP Basic).
        http: a client of yours for the requests, with its proxies and certificates; you close it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or the endpoint is not https.
    """

    __slots__ = ("_keep",)

    def __init__(
        self,
        token_url: str,
        client_id: str,
        refresh_token: str,
        *,
        client_secret: str | None = None,
        scope: str | None = None,
        keep: Keep | None = None,
        parameters: Mapping[str, str] | None = None,
        secret_in: Literal["body", "header"] = "body",
        http: httpx.AsyncClient | None = None,
    ) -> None:
        if not isinstance(refresh_token, str):
            raise TypeError(f"refresh_token must be a str, not {type(refresh_token).__name__}")
        if keep is not None and not callable(keep):
            raise TypeError(f"keep must be an async callable or None, not {keep!r:.80}")
        grant = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        super().__init__(token_url, client_id, client_secret, scope, parameters, grant, secret_in, http)
        self._keep = keep

    @classmethod
    def google(
        cls,
        client_id: str,
        client_secret: str,
        refresh_token: str,
        *,
        keep: Keep | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> RefreshToken:
        """For Gmail and Google Workspace: the person has agreed to the scope ``https://mail.google.com/``.

        Args:
            client_id: the application's.
            client_secret: the application's; an installed one has one, too.
            refresh_token: what the person's agreement gave.
            keep: as for the class.
            http: as for the class.
        """
        return cls(_GOOGLE, client_id, refresh_token, client_secret=client_secret, keep=keep, http=http)

    @classmethod
    def microsoft365(
        cls,
        client_id: str,
        refresh_token: str,
        *,
        tenant: str = "common",
        client_secret: str | None = None,
        keep: Keep | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> RefreshToken:
        """For Exchange Online and outlook.com: the person has agreed to ``SMTP.Send`` and ``offline_access``.

        Args:
            client_id: the application's id.
            refresh_token: what the person's agreement gave. Each answer has a new one: see `keep`.
            tenant: the directory's id or domain; ``"common"``, ``"organizations"`` or ``"consumers"``.
            client_secret: the application's, if it is a confidential one.
            keep: as for the class.
            http: as for the class.
        """
        return cls(
            _microsoft(tenant),
            client_id,
            refresh_token,
            client_secret=client_secret,
            scope="https://outlook.office.com/SMTP.Send offline_access",
            keep=keep,
            http=http,
        )

    async def _learn(self, answer: Mapping[str, Any]) -> None:
        new = answer.get("refresh_token")
        if isinstance(new, str) and new and new != self._parameters["refresh_token"]:
            self._parameters["refresh_token"] = new
            if self._keep is not None:
                with trio.move_on_after(KEEP_TIMEOUT, shield=True):  # the old one may be of no more use
                    await self._keep(new)


def _further(parameters: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's own parameters of the request. Their values may be secrets: an error does not show them."""
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping of str to str, not {type(parameters).__name__}")
    for name, value in parameters.items():
        if not isinstance(name, str) or not isinstance(value, str):
            kinds = f"{type(name).__name__} to {type(value).__name__}"
            raise TypeError(f"parameters must be a mapping of str to str, not of {kinds}")
    return dict(parameters)


def _microsoft(tenant: str) -> str:
    if not isinstance(tenant, str):
        raise TypeError(f"the tenant must be a str, not {type(tenant).__name__}")
    if not tenant or not all(char.isalnum() or char in ".-" for char in tenant) or not tenant.isascii():
        raise ValueError(f"{tenant!r} is not a tenant: its id or its domain")
    return _MICROSOFT.format(tenant=tenant)


def _token_of(answer: Mapping[str, Any]) -> str:
    token, kind = answer.get("access_token"), answer.get("token_type", "Bearer")
    if not isinstance(token, str) or not token or not isinstance(kind, str) or kind.lower() != "bearer":
        raise AuthenticationError("the token endpoint's answer has no bearer token", stage=Stage.AUTH)
    return token


def _life_of(answer: Mapping[str, Any]) -> float:
    """Seconds for which a token may be used. Some endpoints write the number as a string."""
    try:
        life = float(answer.get("expires_in", _DEFAULT_LIFE))
    except (TypeError, ValueError, OverflowError):
        life = _DEFAULT_LIFE
    if not 0 < life < _MOST_LIFE:  # not a number is neither
        life = _MOST_LIFE if life >= _MOST_LIFE else 0.0
    return life - min(MARGIN, life * _SHARE)


def _printable(text: object, most: int) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:most]) if isinstance(text, str) else ""
