# The words of the command line, its complaints and statuses, and what it does without its libraries.
from __future__ import annotations

import ssl
import subprocess
import sys

import click
import pytest
from cli_process import LIMIT, clean_environment, invoke, run

import trio_smtp
from trio_smtp import Delivery, Reply
from trio_smtp._cli import errors, options, samples
from trio_smtp._cli.certificates import load_certificate, make_certificate
from trio_smtp._cli.commands import cli
from trio_smtp._cli.errors import CommandError, Status

# --- help ---


def test_help_names_the_commands_and_every_exit_status():
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(f"\n  {command} " in result.output for command in ("demo", "load", "send", "serve"))
    assert all(f"\n  {int(status)} " in result.output for status in Status)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("command", [(), ("demo",), ("serve",), ("send",), ("load",)])
def test_help_fits_the_terminal(width, command):
    result = invoke(*command, "--help", terminal_width=width)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= max(width, 80)


@pytest.mark.parametrize("command", ["demo", "serve", "send", "load"])
def test_every_option_is_explained(command):
    for parameter in cli.commands[command].params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name


def test_version():
    assert invoke("--version").output == f"trio-smtp, version {trio_smtp.__version__}\n"


def test_it_is_a_module_too():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"trio-smtp, version {trio_smtp.__version__}\n")


# --- without the extra ---


@pytest.mark.parametrize("missing", ["click", "rich", "cryptography"])
def test_without_the_extra_there_is_a_hint(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from trio_smtp._cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"trio-smtp: the command line needs {missing}; install it with: pip install 'trio-smtp[cli]'\n"
    )


def test_another_missing_module_is_not_explained_away():
    code = "import sys; sys.modules['trio'] = None; from trio_smtp._cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "ModuleNotFoundError" in done.stderr


# --- words to values ---


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("mx.example", ("mx.example", None)),
        ("mx.example:25", ("mx.example", 25)),
        ("192.0.2.1:2525", ("192.0.2.1", 2525)),
        ("[2001:db8::1]:25", ("2001:db8::1", 25)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
    ],
)
def test_host_port(words, value):
    assert options.host_port(words) == value


def test_a_unix_socket_has_no_port():
    assert options.host_port("unix:/run/a:b") == ("unix:/run/a:b", None)
    assert options.host_words("unix:/run/a:b", None) == "unix:/run/a:b"
    with pytest.raises(click.BadParameter):
        options.host_port("unix:")


@pytest.mark.parametrize("words", ["", ":25", "x:", "x:y", "x:0", "x:65536", "x:²", "a:b:25", "[]:25", "x:-1"])
def test_what_is_no_host_port(words):
    result = invoke("send", "--server", words, "--from", "a@x", "--to", "b@x")
    assert result.exit_code == 2
    assert f"Invalid value for '--server': {words!r} is not HOST:PORT." in result.output


@pytest.mark.parametrize("words", ["", "a b", "two\twords", "mx.example\r\nQUIT", "mü.example"])
def test_what_is_no_name_for_ehlo(words):
    result = invoke("send", "--server", "x", "--from", "a@x", "--to", "b@x", "--hostname", words)
    assert result.exit_code == 2
    assert f"Invalid value for '--hostname': {words!r} is not a name" in " ".join(result.output.split())


@pytest.mark.parametrize(("words", "value"), [("1", 1), ("64K", 65536), ("10m", 10 * 2**20), ("1 GiB", 2**30)])
def test_size(words, value):
    assert options.size(words) == value


@pytest.mark.parametrize("words", ["", "0", "-1", "x", "1T", "1.5M", "0K"])
def test_what_is_no_size(words):
    result = invoke("serve", "--max-size", words)
    assert result.exit_code == 2
    assert "is not a size such as" in result.output


# --- options that do not go together ---


def test_lmtp_is_not_spoken_on_port_25():
    result = invoke("send", "--server", "x:25", "--from", "a@x", "--to", "b@x", "--lmtp")
    assert result.exit_code == 2
    assert "LMTP must not be used on port 25" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ("--print --discard", "--maildir, --print (or --raw) and --discard exclude each other."),
        ("--maildir x --discard", "--maildir, --print (or --raw) and --discard exclude each other."),
        ("--maildir x --raw", "--maildir, --print (or --raw) and --discard exclude each other."),
        ("--quiet", "--quiet needs --maildir or --discard"),
        ("--max-connections 0", "'0' is not a number such as 30, or none."),
        ("--max-connections 1.5", "'1.5' is not a number such as 30, or none."),
        ("--command-timeout -1", "'-1' is not a number of seconds such as 30, or none."),
        ("--command-timeout inf", "'inf' is not a number of seconds such as 30, or none."),
        ("--json", "--json needs --maildir or --discard"),
        ("--implicit-tls", "--implicit-tls and --require-tls need --tls-cert or --tls-self-signed."),
        ("--require-tls", "--implicit-tls and --require-tls need --tls-cert or --tls-self-signed."),
        ("--auth me:pw", "--auth without TLS would send passwords in clear"),
        ("--allow-insecure-auth", "--allow-insecure-auth needs --auth."),
        ("--password-file x", "--password-file needs --auth USER."),
        ("--auth :pw --tls-self-signed", "--auth must be USER or USER:PASSWORD."),
        ("--auth me:pw --password-file x --tls-self-signed", "The password is given twice"),
        ("--auth me --tls-self-signed", "No password for 'me'"),
        ("--tls-cert x --tls-self-signed", "--tls-cert and --tls-self-signed exclude each other."),
        ("--tls-key x", "--tls-key needs --tls-cert."),
        ("--tls-cert-out x", "--tls-cert-out needs --tls-self-signed."),
        ("--proxy-protocol-from 10.0.0.1/8", "'10.0.0.1/8' is not a network"),
        ("--port 65536", "--port"),
        ("--hostname two\twords", "hostname"),
    ],
)
def test_serve_refuses_what_makes_no_sense(args, complaint, monkeypatch):
    monkeypatch.delenv("TRIO_SMTP_PASSWORD", raising=False)
    result = invoke("serve", "--port", "0", *args.split(" "))
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\n")
    pem = tmp_path / "cert.pem"
    pem.write_text(make_certificate().pem)
    for args, words in [
        (f"--tls-cert {tmp_path}/none", f"cannot use {tmp_path}/none for TLS: No such file or directory"),
        (f"--tls-cert {tmp_path}/empty", f"cannot use {tmp_path}/empty for TLS: no certificate and private key in PEM"),
        (f"--tls-cert {pem}", f"cannot use {pem} for TLS: no certificate and private key in PEM form"),
        (f"--auth me --password-file {tmp_path}/none", f"cannot read the password from {tmp_path}/none: No such file"),
        (f"--auth me --password-file {tmp_path}/empty", f"the first line of {tmp_path}/empty is empty: no password"),
        (f"--auth me --password-file {tmp_path}/binary", f"cannot read the password from {tmp_path}/binary: not UTF-8"),
    ]:
        result = invoke("serve", "--port", "0", *args.split())
        assert result.exit_code == 66
        assert result.output.startswith(f"trio-smtp: {words}")
        assert result.output.count("\n") == 1


def test_certificate_that_cannot_be_written(tmp_path):
    result = invoke("serve", "--port", "0", "--tls-self-signed", "--tls-cert-out", f"{tmp_path}/none/cert.pem")
    assert result.exit_code == 71
    assert result.output == f"trio-smtp: cannot write {tmp_path}/none/cert.pem: No such file or directory\n"


# --- errors to statuses ---


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (trio_smtp.LocalProtocolError("CR in an address"), Status.DATA),
        (trio_smtp.ConnectError("no"), Status.NO_HOST),
        (trio_smtp.ConnectError("no", reply=Reply(421, "busy")), Status.TRY_LATER),
        (trio_smtp.ConnectError("no", reply=Reply(554, "no")), Status.REFUSED),
        (trio_smtp.ConnectionLostError("gone", delivery=Delivery.NOT_SENT), Status.TRY_LATER),
        (trio_smtp.ConnectionLostError("gone", delivery=Delivery.UNKNOWN), Status.UNKNOWN),
        (trio_smtp.ConnectionLostError("gone", delivery=Delivery.UNKNOWN, accepted=["a"]), Status.UNKNOWN),
        (trio_smtp.ConnectionLostError("gone", accepted=["a"], unknown=["b"]), Status.UNKNOWN),
        (trio_smtp.SMTPTimeoutError("slow", delivery=Delivery.UNKNOWN), Status.UNKNOWN),
        (trio_smtp.SMTPTimeoutError("slow", stage=trio_smtp.Stage.CONNECT), Status.NO_HOST),
        (trio_smtp.SMTPTimeoutError("slow", stage=trio_smtp.Stage.GREETING), Status.TRY_LATER),
        (trio_smtp.SMTPTimeoutError("slow", delivery=Delivery.NOT_SENT), Status.TRY_LATER),
        (trio_smtp.TLSError("no"), Status.NO_PERMISSION),
        (trio_smtp.TLSError("no", reply=Reply(454, "not now")), Status.TRY_LATER),
        (trio_smtp.AuthenticationError("no", reply=Reply(535, "wrong")), Status.NO_PERMISSION),
        (trio_smtp.AuthenticationError("no", reply=Reply(454, "not now")), Status.TRY_LATER),
        (trio_smtp.UnsupportedAuthError("none"), Status.NO_PERMISSION),
        (trio_smtp.SenderRefusedError("no", reply=Reply(550, "no")), Status.REFUSED),
        (trio_smtp.SenderRefusedError("no", reply=Reply(450, "no")), Status.TRY_LATER),
        (trio_smtp.RecipientsRefusedError("no", refused={"a": Reply(550, "no"), "b": Reply(550, "")}), Status.REFUSED),
        (
            trio_smtp.RecipientsRefusedError("no", refused={"a": Reply(550, "no"), "b": Reply(450, "")}),
            Status.TRY_LATER,
        ),
        (trio_smtp.MessageRefusedError("no", reply=Reply(554, "spam")), Status.REFUSED),
        (trio_smtp.MessageRefusedError("no", reply=Reply(554, "spam"), accepted=["a"]), Status.PARTIAL),
        (trio_smtp.MessageTooLargeError("big"), Status.REFUSED),
        (trio_smtp.ExtensionNotSupportedError("SMTPUTF8"), Status.REFUSED),
        (trio_smtp.RemoteProtocolError("babble"), Status.PROTOCOL),
    ],
)
def test_statuses(error, status):
    assert errors.status_of(error) is status


def test_every_status_has_a_meaning():
    assert all(status.meaning for status in Status)


def test_the_reason_is_the_systems():
    error = trio_smtp.ConnectError("cannot connect")
    error.__cause__ = OSError("all attempts failed")
    error.__cause__.__cause__ = ExceptionGroup("", [OSError(111, "Connection refused"), OSError(113, "No route")])
    assert errors.describe(error, "mx:25") == "cannot connect to mx:25: No route to host"


def test_what_a_peer_says_stays_on_one_line():
    error = CommandError("a\r\nb\x1b[31mc\u2028d", Status.REFUSED)
    assert str(error) == "a  b [31mc d"


async def fail(error):
    raise error


def test_an_error_of_ours_is_shown_whole(capsys):
    with pytest.raises(SystemExit) as ended:
        errors.run(fail, ValueError("a bug"))
    assert ended.value.code == 70
    output = capsys.readouterr().err
    assert "ValueError: a bug" in output
    assert output.endswith("trio-smtp: this is an error in trio-smtp itself, please report it\n")


def test_an_interrupt_comes_out_of_nurseries_as_itself():
    with pytest.raises(KeyboardInterrupt):
        errors.run(fail, BaseExceptionGroup("", [KeyboardInterrupt(), ValueError()]))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_while_options_are_read(error, monkeypatch):
    def interrupt(*args):
        raise error

    monkeypatch.setattr("trio_smtp._cli.options.credentials", interrupt)
    result = invoke("send", "--server", "x", "--from", "a@x", "--to", "b@x")
    assert (result.exit_code, result.output) == (130, "trio-smtp: interrupted\n")


def test_a_command_error_comes_out_of_nurseries_as_itself():
    error = CommandError("no", Status.DATA)
    with pytest.raises(CommandError) as caught:
        errors.run(fail, ExceptionGroup("", [ExceptionGroup("", [error])]))
    assert caught.value is error


# --- certificates and sample messages ---


def test_a_throw_away_certificate_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    certificate = make_certificate(["mx.example", "192.0.2.1", "mü.example"])
    assert list(tmp_path.iterdir()) == []
    assert len(certificate.fingerprint) == 95
    assert certificate.client_context().verify_mode is ssl.CERT_REQUIRED
    assert certificate.client_context().check_hostname


def test_its_key_is_gone_too_when_loading_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(*args, **kwargs):
        [path] = tmp_path.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()
        raise ssl.SSLError("no")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", fail)
    with pytest.raises(ssl.SSLError):
        make_certificate()
    assert list(tmp_path.iterdir()) == []


def test_a_key_with_a_password_is_refused_instead_of_asking(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "both.pem").write_bytes(make_certificate().pem.encode() + key)
    with pytest.raises(ValueError, match="protected by a password"):
        load_certificate(str(tmp_path / "both.pem"), None)


def test_the_sample_messages_are_what_mail_software_gets_wrong():
    messages = {sample.name: sample for sample in samples.load_samples()}
    assert list(messages) == [
        "blank-lines",
        "empty-body",
        "html-attachment",
        "leading-dots",
        "long-lines",
        "non-ascii",
        "plain",
        "smtputf8",
    ]
    for sample in messages.values():
        content = sample.content
        assert content.endswith(b"\r\n")
        assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
        assert max(map(len, content.split(b"\r\n"))) <= 998
        assert sample.sender
        assert sample.recipients
    assert b"\r\n.\r\n" in messages["leading-dots"].content
    assert messages["empty-body"].content.endswith(b"\r\n\r\n")
    assert len(max(messages["long-lines"].content.split(b"\r\n"), key=len)) == 998
    assert messages["smtputf8"].sender == "jürgen@example.com"
    assert messages["html-attachment"].recipients == (
        "grace@example.net",
        "katherine@example.net",
        "archive@example.com",
    )
    assert not messages["non-ascii"].content.isascii()
