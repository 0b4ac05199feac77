"""Each module has a test file that is named after it: test_<module>.py, or test_<package>_<module>.py.

A module without one stands in a table here, with the file that tests it, or with the reason why there is none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent / "trio_smtp"
# Modules whose tests have another name, mostly since they are tested through what uses them.
ELSEWHERE = {
    "_cli/certificates": "test_cli",
    "_cli/commands": "test_cli",
    "_cli/descriptors": "test_refusals",
    "_cli/dsn": "test_cli_outbox",
    "_cli/entries": "test_cli_outbox",
    "_cli/errors": "test_cli",
    "_cli/letters": "test_cli_send",
    "_cli/main": "test_cli",
    "_cli/options": "test_cli",
    "_cli/queueing": "test_cli_outbox",
    "_cli/relaying": "test_cli_relay",
    "_cli/samples": "test_cli",
    "_cli/serve_plan": "test_cli",
    "_cli/serve_tls": "test_cli",
    "_cli/received": "test_maildir",
    "_client/body": "test_client_slow_peers",
    "_client/client": "test_client",
    "_client/config": "test_client",
    "_client/connection": "test_client",
    "_client/encoder": "test_client_fates",
    "_client/mail_parameters": "test_client_parameters",
    "_client/refusals": "test_pool",
    "_client/sending": "test_client_fates",
    "_client/steps": "test_pool_steps",
    "_client/transfer": "test_client_fates",
    "_message/header_envelope": "test_encoded_addresses",
    "_message/identifiers": "test_message_fields",
    "_message/mailboxes": "test_message_fields",
    "_message/target": "test_message_folding",
    "_pool/config": "test_pool",
    "_pool/flying": "test_pool_pipeline",
    "_pool/loan": "test_pool_steps",
    "_pool/statistics": "test_pool",
    "_pool/stepped": "test_pool_steps",
    "_protocol/client/commands": "test_client_protocol",
    "_protocol/client/transaction": "test_client_protocol",
    "_protocol/hosts": "test_refusals",
    "_protocol/proxy": "test_proxy",
    "_protocol/sasl/cram": "test_sasl_credentials",
    "_protocol/sasl/oauth_server": "test_sasl_server",
    "_protocol/sasl/scram_client": "test_sasl_scram",
    "_protocol/sasl/scram_server": "test_sasl_scram",
    "_protocol/server/chunks": "test_server_bdat",
    "_protocol/server/extension": "test_extensions_application",
    "_protocol/server/message": "test_server_transfer",
    "_protocol/server/profile": "test_server_extensions",
    "_protocol/server/reading": "test_server_commands",
    "_protocol/server/relay": "test_xclient",
    "_protocol/server/rows": "test_server_states",
    "_server/context": "test_server_tls",
    "_server/dialogue": "test_server_logging",
    "_server/descriptors": "test_refusals",
    "_server/event_rows": "test_server_hooks",
    "_server/handler": "test_server_hooks",
    "_server/log": "test_server_logging",
    "_server/proxy": "test_proxy",
    "_server/refusals": "test_refusals",
    "_server/server": "test_server_shutdown",
    "_server/session": "test_server_hooks",
    "_wire/opening": "test_wire",
    "_wire/wire": "test_wire",
    "dkim/_signer": "test_dkim",
    "oauth/_providers": "test_oauth",
    "reports/_fields": "test_reports",
    "reports/_making": "test_reports",
    "reports/_reading": "test_reports",
    "socks/_through": "test_socks",
    "inbox/_answers": "test_inbox_mailpit",
    "inbox/_box": "test_inbox_inbox",
    "inbox/_web": "test_inbox_inbox",
    "outbox/_kept": "test_outbox_states",
    "outbox/_redis_client": "test_outbox_redis",
    "outbox/_entry": "test_outbox_states",
    "outbox/_scripts": "test_outbox",
    "outbox/_outbox": "test_outbox",
    "outbox/_pauses": "test_outbox_ledger",
    "outbox/_records": "test_outbox",
    "outbox/_store": "test_outbox",
    "outbox/_trace": "test_outbox_work",
    "outbox/_tries": "test_outbox_work",
    "telemetry/_metrics": "test_telemetry",
    "telemetry/_opentelemetry": "test_telemetry",
    "telemetry/_prometheus": "test_telemetry",
    "telemetry/_tally": "test_telemetry",
    "telemetry/_words": "test_telemetry",
    "testing/_certificates": "test_testing_sink",
    "testing/_points": "test_testing_sink",
    "testing/_server": "test_testing_sink",
    "testing/_sink_handler": "test_testing_sink",
    "testing/pytest_plugin": "test_testing_plugin",
}
DECLARATIONS = {
    "_client/log": "a logger",
    "_protocol/errors": "classes; those that raise them test them",
    "_protocol/server/events": "values",
    "_protocol/server/fixed_replies": "values",
    "_protocol/server/observation": "a value",
    "_version": "a number",
    "reports/_values": "values",
    "outbox/_errors": "classes; those that raise them test them",
}


def modules() -> list[str]:
    names = (path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))
    return sorted(name for name in names if not name.rpartition("/")[2].startswith("__"))


def names_of(module: str) -> list[str]:
    """What its test file may be called, the longest name first."""
    parts = [part.strip("_") for part in module.split("/")]
    return ["test_" + "_".join(parts[at:]) for at in range(len(parts))]


def is_a_test(name: str) -> bool:
    return (TESTS / f"{name}.py").is_file()


def named_after(module: str) -> str | None:
    """The test file that is named after a module. A name that would fit several modules is none's."""
    others = [name for other in modules() if other != module for name in names_of(other)]
    return next((name for name in names_of(module) if name not in others and is_a_test(name)), None)


@pytest.mark.parametrize("module", modules())
def test_each_module_has_a_test_file(module: str) -> None:
    stated = [module in ELSEWHERE, module in DECLARATIONS, named_after(module) is not None]
    assert sum(stated) == 1, f"write tests/{names_of(module)[0]}.py, or say in tests/test_layout.py what tests {module}"
    assert module not in ELSEWHERE or is_a_test(ELSEWHERE[module])


def test_the_tables_name_modules_that_exist() -> None:
    assert ELSEWHERE.keys() | DECLARATIONS.keys() <= set(modules())
