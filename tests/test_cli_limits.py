# The limits of `serve`, from words to the server's configuration.
from __future__ import annotations

import math

import pytest

import trio_smtp
from trio_smtp._cli.commands import cli
from trio_smtp._cli.limits import _NAMES, config_of, is_loopback


def test_every_option_is_a_field_of_the_configuration_and_says_its_default():
    parameters = {parameter.name: parameter for parameter in cli.commands["serve"].params}
    fields = trio_smtp.ServerConfig.__dataclass_fields__
    for name in _NAMES:
        assert name in fields
        words = getattr(parameters[name], "help", "") or ""
        shown = parameters[name].default is not None
        assert shown or words.endswith(f"[default: {fields[name].default}]")


def test_none_lifts_a_limit_and_what_is_not_given_stays_the_default():
    options = {"command_timeout": math.inf, "max_connections": 7, "max_messages": None, "host": "x"}
    assert config_of(options, is_local=False) == ({"command_timeout": None, "max_connections": 7}, {"host": "x"})


def test_clients_of_this_machine_have_no_limit_unless_one_is_given():
    assert config_of({}, is_local=True)[0] == {"max_connections_per_host": None}
    assert config_of({"max_connections_per_host": 3}, is_local=True)[0] == {"max_connections_per_host": 3}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST."])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "", "192.0.2.1", "mx.example"])
def test_not_loopback(host):
    assert not is_loopback(host)
