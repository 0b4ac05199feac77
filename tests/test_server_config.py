# ServerConfig: every field refuses what it cannot mean, by name, when the object is made and not at the first session.
from __future__ import annotations

import dataclasses
import inspect
import ipaddress
import math
from datetime import UTC, date, datetime

import pytest

from trio_smtp import ServerConfig, ServerExtension

SECONDS = (0, -1, math.nan, "5", True)
COUNT = (0, -1, 1.5, "5", True)
COUNT_OR_ZERO = (-1, 1.5, "5", True)
FLAG = (0, 1, "no", None)
NAMES = ("PLAIN", 5, None, ("NO-SUCH-THING",))
NETWORKS = ("10.0.0.0/8", 5, None, ("10.0.0.1/8",), ("example.com",), (None,))

BAD: dict[str, tuple[object, ...]] = {
    "hostname": ("", "a b", "a\r\nb", "ü", "a\0", None, b"mx"),
    "banner": ("a\r\nb", "ü", "\0", None, 5),
    "command_timeout": SECONDS,
    "data_timeout": SECONDS,
    "min_data_rate": SECONDS,
    "session_timeout": SECONDS,
    "handler_timeout": SECONDS,
    "tls_handshake_timeout": SECONDS,
    "proxy_timeout": SECONDS,
    "auth": ("maybe", None, True, ""),
    "auth_mechanisms": NAMES,
    "allow_insecure_auth": FLAG,
    "max_message_size": COUNT,
    "enable_ehlo": FLAG,
    "require_tls": FLAG,
    "disabled_extensions": ("PIPELINING", 5, None, ("NO-SUCH-THING",)),
    "enabled_extensions": ("DSN", 5, None, ("NO-SUCH-THING",), ("PIPELINING",)),
    "max_hold": (*COUNT, 1_000_000_000),
    "max_hold_until": (5, "2030-01-01T00:00:00Z", date(2030, 1, 1), datetime(2030, 1, 1)),
    "min_deliver_by": (*COUNT, 1_000_000_000),
    "extensions": (5, None, ("XFOO",), (ServerExtension(keyword="XFOO"), ServerExtension(keyword="XFOO"))),
    "max_connections": COUNT,
    "max_connections_per_host": COUNT,
    "max_recipients": COUNT,
    "max_messages": COUNT,
    "max_errors": COUNT,
    "max_junk_commands": COUNT_OR_ZERO,
    "soft_errors": COUNT_OR_ZERO,
    "error_delay": SECONDS,
    "max_auth_failures": COUNT,
    "max_auth_failures_per_host": (
        10,
        "ab",
        (10,),
        (0, 60),
        (10, 0),
        (10, "60"),
        (1.5, 60),
        (None, 60),
        (10, None),
        (1, 2, 3),
    ),
    "max_command_line": (511, None, 2048.0, "2048", True),
    "max_auth_line": (2047, None, 12288.0, "12288"),
    "max_reply_buffer": (0, -1, None, 65536.0, "65536", True),
    "bare_newlines": ("accept", None, True),
    "nul": ("drop", None, True),
    "lenient_addresses": FLAG,
    "reject_early_talkers": FLAG,
    "lmtp": FLAG,
    "proxy_protocol_from": NETWORKS,
    "xclient_from": NETWORKS,
    "scram_secret": (b"", b"x" * 15, "x" * 32, None),
    "trace": (5, "print", []),
    "scram_iterations": (0, 4095, 10**9, None, 4096.0, "4096"),
    "transcript": (1, "print"),
}
MAY_BE_NONE = {
    *(f"{what}_timeout" for what in ("command", "data", "session", "handler", "tls_handshake", "proxy")),
    *("min_data_rate", "error_delay", "soft_errors", "max_message_size", "max_connections", "max_connections_per_host"),
    *("max_recipients", "max_messages", "max_errors", "max_junk_commands", "max_auth_failures"),
    *("max_auth_failures_per_host", "max_hold", "max_hold_until", "min_deliver_by", "trace", "transcript"),
}
FIELDS = [field.name for field in dataclasses.fields(ServerConfig)]


def test_every_field_is_tried():
    assert sorted(BAD) == sorted(FIELDS)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_by_the_name_of_its_field(name: str, value: object):
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b|\b{name}\b"):
        ServerConfig(**{name: value})  # type: ignore[arg-type]


def test_a_scram_secret_is_in_no_message():
    with pytest.raises(ValueError, match="scram_secret") as caught:
        ServerConfig(scram_secret=b"hunter2")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(ServerConfig(scram_secret=b"hunter2" * 5))


@pytest.mark.parametrize("name", FIELDS)
def test_none_lifts_a_limit_and_is_wrong_elsewhere(name: str):
    if name in MAY_BE_NONE:
        assert getattr(ServerConfig(**{name: None}), name) is None  # type: ignore[arg-type]
    else:
        with pytest.raises((ValueError, TypeError)):
            ServerConfig(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FIELDS)
def test_frozen(name: str):
    config = ServerConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, getattr(config, name))


def test_keyword_only_in_the_order_of_the_documentation():
    parameters = inspect.signature(ServerConfig).parameters.values()
    assert {each.kind for each in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    with pytest.raises(TypeError):
        ServerConfig("mx.test")  # type: ignore[call-arg]
    documentation = inspect.getdoc(ServerConfig) or ""  # from 3.13 on, docstrings come without their indentation
    positions = [documentation.index(f"\n    {name}: ") for name in FIELDS if f"\n    {name}: " in documentation]
    assert len(positions) == len(FIELDS), "every field is documented"


def test_the_least_and_the_most_that_is_allowed():
    ServerConfig(max_command_line=512, max_auth_line=512, scram_iterations=4096, scram_secret=b"x" * 16)
    ServerConfig(soft_errors=0, max_junk_commands=0, max_errors=1, max_connections=1, command_timeout=0.001)
    ServerConfig(command_timeout=math.inf, session_timeout=math.inf)
    ServerConfig(max_hold=1, min_deliver_by=1)
    ServerConfig(max_hold=999_999_999, min_deliver_by=999_999_999)
    ServerConfig(max_hold_until=datetime(2030, 1, 1, tzinfo=UTC))


def test_names_and_networks_are_made_uniform():
    config = ServerConfig(
        auth_mechanisms=["plain", "Scram-Sha-256"],
        disabled_extensions=["pipelining"],
        enabled_extensions=["dsn"],
        proxy_protocol_from=["10.0.0.0/8", ipaddress.ip_network("2001:db8::/32")],
        xclient_from=["127.0.0.1"],
    )
    assert config.auth_mechanisms == ("PLAIN", "SCRAM-SHA-256")
    assert config.disabled_extensions == ("PIPELINING",)
    assert config.enabled_extensions == ("DSN",)
    assert config.proxy_protocol_from == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))
    assert config.xclient_from == (ipaddress.ip_network("127.0.0.1/32"),)


def test_what_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="enable_ehlo"):
        ServerConfig(lmtp=True, enable_ehlo=False)
    with pytest.raises(ValueError, match="max_auth_line"):
        ServerConfig(max_command_line=20000)


def test_a_secret_of_its_own_for_every_configuration():
    assert ServerConfig().scram_secret != ServerConfig().scram_secret
    assert len(ServerConfig().scram_secret) == 32


def test_a_changed_copy_is_checked_too():
    with pytest.raises(ValueError, match="max_errors"):
        dataclasses.replace(ServerConfig(), max_errors=0)


def test_options_have_each_a_place():
    """name, SMTPBanner, timeout, requireAuthentication, authMethods, maxSize, disableEHLO, and later ones."""
    config = ServerConfig(
        hostname="mx.test",
        banner="welcome",
        command_timeout=60,
        auth="required",
        auth_mechanisms=("PLAIN", "LOGIN", "XOAUTH2"),
        max_message_size=100,
        enable_ehlo=False,
        max_connections=5,
        allow_insecure_auth=True,
        disabled_extensions=("STARTTLS",),
    )
    assert config.hostname == "mx.test"


def test_an_unknown_mechanism_is_refused_and_not_advertised():
    with pytest.raises(ValueError, match="auth_mechanisms: 'NTLM'"):
        ServerConfig(auth_mechanisms=("PLAIN", "NTLM"))
