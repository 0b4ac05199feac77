# The names that `trio_smtp` exports: that they say so themselves, and show what they are.
from __future__ import annotations

import ast
import inspect
import pathlib
import pickle
import re
import traceback

import pytest

import trio_smtp
from trio_smtp import dkim, inbox, oauth, outbox, reports, socks, testing

MODULES = (trio_smtp, dkim, inbox, oauth, outbox, reports, socks, testing)
EXPORTED = {name: getattr(module, name) for module in MODULES for name in module.__all__ if not name.startswith("__")}
THINGS = [getattr(module, name) for module in MODULES for name in module.__all__]
CLASSES = [thing for thing in THINGS if inspect.isclass(thing)]
FUNCTIONS = [thing for thing in THINGS if inspect.isfunction(thing)]
ROOT = pathlib.Path(trio_smtp.__file__).parent


def public_functions():
    """Public functions and the public methods and constructors of public classes, with the names they have in help."""
    found = {f"{thing.__module__}.{thing.__name__}": inspect.unwrap(thing) for thing in FUNCTIONS}
    for cls in CLASSES:
        for base in inspect.getmro(cls):
            if base.__module__.partition(".")[0] != "trio_smtp":
                continue
            for name, member in vars(base).items():
                member = inspect.unwrap(getattr(member, "__func__", None) or getattr(member, "fget", None) or member)
                if inspect.isfunction(member) and (not name.startswith("_") or name in ("__init__", "__anext__")):
                    found[f"{cls.__module__}.{cls.__name__}.{name}"] = member
    return found


PUBLIC_FUNCTIONS = public_functions()


@pytest.mark.parametrize("thing", [*CLASSES, *FUNCTIONS], ids=lambda thing: thing.__name__)
def test_names_its_public_module(thing):
    [module] = [module for module in MODULES if vars(module).get(thing.__name__) is thing]
    assert thing.__module__ == module.__name__


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_sorted_and_complete(module):
    exported = {
        name for name in vars(module) if not name.startswith("_") and not inspect.ismodule(getattr(module, name))
    }
    assert exported == {name for name in module.__all__ if name != "__version__"}
    assert len(set(module.__all__)) == len(module.__all__)


def own_names(path):
    """The names of a module that trio_smtp defines: in it, or in another of its modules."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("trio_smtp")):
            names |= {alias.asname or alias.name for alias in node.names if len(alias.name) > 1}
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            names.add(ast.unparse(node.target))
    return names


def annotations_of(path):
    """Public names of a module to the annotations that stand in them."""

    def visit(nodes, inside):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                if not node.name.startswith("_") or inside:
                    yield from visit(node.body, f"{inside}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if not node.name.startswith("_") or (inside and node.name == "__init__"):
                    arguments = node.args
                    every = (*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
                    yield f"{inside}{node.name}", [each.annotation for each in every if each] + [node.returns]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                if ast.unparse(node.annotation) == "TypeAlias":
                    value = node.value
                    yield node.target.id, [ast.parse(str(value.value)) if isinstance(value, ast.Constant) else value]
                elif not node.target.id.startswith("_"):
                    yield f"{inside}{node.target.id}", [node.annotation]

    return dict(visit(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def exported_from():
    """Where each public name is defined: pairs of module and name."""
    for package in (ROOT / f"{name}/__init__.py" for name in (".", "inbox", "outbox", "testing")):
        for node in ast.walk(ast.parse(package.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                path = package.parent.joinpath(*node.module.split("."))
                path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
                for alias in node.names:
                    if alias.name in EXPORTED:
                        yield path, alias.name


def resolved(path, name):
    """Follow a re-export, as that of ``sasl/__init__.py``, to the module that defines the name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and name in {alias.name for alias in node.names}:
            return path.parent / f"{node.module}.py"
    return path


@pytest.mark.parametrize(("path", "name"), sorted(exported_from()), ids=lambda each: getattr(each, "stem", each))
def test_types_in_public_signatures_are_exported(path, name):
    """A caller can name every type that it passes or gets."""
    path = resolved(path, name)
    own, hidden = own_names(path), {}
    for place, found in annotations_of(path).items():
        if place.partition(".")[0] == name:
            nodes = [node for annotation in found if annotation is not None for node in ast.walk(annotation)]
            words = {node.id for node in nodes if isinstance(node, ast.Name)}
            if unknown := (words & own) - EXPORTED.keys():
                hidden[place] = unknown
    assert not hidden


def test_traceback_names_the_public_module():
    [line] = traceback.format_exception_only(trio_smtp.ConnectError("no route"))
    assert line == "trio_smtp.ConnectError: no route\n"


def test_reply_can_be_pickled():
    reply = trio_smtp.Reply(250, "OK", "2.0.0")
    assert pickle.loads(pickle.dumps(reply)) == reply


@pytest.mark.parametrize("thing", CLASSES, ids=lambda thing: thing.__name__)
def test_has_a_docstring(thing):
    assert inspect.getdoc(thing)


# -- what they say of themselves

WAITING = {
    name: function
    for name, function in PUBLIC_FUNCTIONS.items()
    if inspect.iscoroutinefunction(function)
    or inspect.isasyncgenfunction(function)
    or name == "trio_smtp.Pool.send_many"
}
OPENERS = [
    "open_client",
    "open_pool",
    "inbox.open_inbox",
    "testing.open_script",
    "testing.open_server",
    "testing.open_sink",
]
RAISING = [
    *(f"Client.{name}" for name in ("send", "transaction", "noop", "reset", "verify", "command", "quit")),
    *(f"Server.{name}" for name in ("serve", "serve_listeners", "shutdown")),
    *("OutgoingMessage.send_all", "Pool.send", "Pool.send_many", "serve", *OPENERS),
]


def test_the_walk_finds_what_waits():
    assert {f"trio_smtp.{name}" for name in RAISING} <= WAITING.keys()


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_says_what_cancellation_does(name):
    """In its own words, or in those of its class for all of its methods."""
    owner = EXPORTED.get(name.rpartition(".")[0].rpartition(".")[2])
    words = f"{inspect.getdoc(WAITING[name])} {inspect.getdoc(owner) if inspect.isclass(owner) else ''}"
    assert re.search(r"cancel", words, re.IGNORECASE)


@pytest.mark.parametrize("name", RAISING)
def test_what_may_fail_says_what_it_raises(name):
    assert re.search(r"^Raises: ?", inspect.getdoc(WAITING[f"trio_smtp.{name}"]) or "", re.MULTILINE)


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_every_public_method_has_a_docstring(name):
    assert name.endswith((".__init__", ".__anext__")) or inspect.getdoc(PUBLIC_FUNCTIONS[name])


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_public_class_has_the_default_repr(cls):
    assert cls.__repr__ is not object.__repr__ or getattr(cls, "_is_protocol", False)  # the caller's own class


def test_an_error_shows_the_facts():
    error = trio_smtp.ConnectError("no route", stage=trio_smtp.Stage.CONNECT, delivery=trio_smtp.Delivery.NOT_SENT)
    assert repr(error) == "ConnectError('no route', stage='connect', delivery='not_sent')"
    assert repr(trio_smtp.SMTPError("no")) == "SMTPError('no')"


def test_a_handler_shows_its_hooks():
    class Inbox(trio_smtp.Handler):
        async def on_data(self, session, envelope, body):
            return None

    assert re.fullmatch(r"<test_public_names\..*Inbox: on_data>", repr(Inbox()))
    assert repr(trio_smtp.Handler()) == "<trio_smtp.Handler: no hook>"


SECRET = "c2VjcmV0c2VjcmV0"  # base64 of something, and a bearer token


async def ask_for_a_token():
    return SECRET


class Keeper(trio_smtp.Handler):
    """Keeps what hooks get, as it shows itself."""

    def __init__(self):
        self.shown = []

    async def on_auth(self, session, credentials):
        self.shown += [repr(credentials), repr(session)]
        return credentials.check_password(SECRET) or credentials.token == SECRET

    async def on_data(self, session, envelope, body):
        self.shown += [repr(session), repr(envelope), repr(body)]
        await body.read()
        self.shown.append(repr(body))


def test_values_show_no_secret():
    values = [
        trio_smtp.Password("me", SECRET),
        trio_smtp.OAuth("me", SECRET),
        trio_smtp.OAuth("me", ask_for_a_token),
        trio_smtp.XOAuth(SECRET),
        trio_smtp.Credentials("PLAIN", "me", password=SECRET),
        trio_smtp.Credentials("XOAUTH2", "me", token=SECRET),
        trio_smtp.ServerConfig(scram_secret=SECRET.encode() * 2),
    ]
    for value in values:
        assert SECRET not in repr(value) + str(value)


LOGINS = {
    **dict.fromkeys(("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"), ("me", SECRET)),
    **dict.fromkeys(("XOAUTH2", "OAUTHBEARER"), trio_smtp.OAuth("me", SECRET)),
}


@pytest.mark.parametrize("mechanism", LOGINS)
async def test_nothing_of_a_session_shows_a_secret(mechanism):
    keeper = Keeper()
    shown = keeper.shown
    config = trio_smtp.ServerConfig(auth="required", allow_insecure_auth=True, auth_mechanisms=(mechanism,))
    async with testing.open_server(keeper, config=config) as server:
        options = {**server.client_options, "auth": LOGINS[mechanism], "allow_insecure_auth": True}
        async with trio_smtp.open_client(server.host, server.port, **options) as client:
            shown += [repr(client), repr(client.extensions), repr(client.greeting)]
            async with client.transaction("a@example.com", ["b@example.com"]) as message:
                shown.append(repr(message))
                await message.send_all(b"Subject: x\r\n\r\n")
            shown += [repr(message), repr(message.result)]
        async with trio_smtp.open_pool(server.host, server.port, **options) as pool:
            async with pool.send_many([("a@example.com", ["b@example.com"], b"")]) as outcomes:
                shown += [repr(outcomes), *[repr(outcome) async for outcome in outcomes]]
            shown += [repr(pool), repr(pool.statistics())]
        shown += [repr(server), repr(server.server), repr(keeper)]
    assert len(shown) >= 20
    for text in shown:
        assert SECRET not in text
        assert " object at 0x" not in text


async def test_a_refused_login_shows_no_secret():
    async with testing.open_sink(auth=("me", "other")) as sink:
        with pytest.raises(trio_smtp.AuthenticationError) as caught:
            async with trio_smtp.open_client(sink.host, sink.port, **{**sink.client_options, "auth": ("me", SECRET)}):
                raise AssertionError("it was let in")
    assert SECRET not in repr(caught.value) + str(caught.value)


async def test_a_sink_does_not_show_its_password():
    async with testing.open_sink(auth=("me", SECRET)) as sink:
        async with trio_smtp.open_client(sink.host, sink.port, **sink.client_options) as client:
            await client.send("a@example.com", ["b@example.com"], b"")
        assert SECRET not in repr(sink) + repr(sink.messages)
