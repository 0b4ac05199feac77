# SASL inside SMTP (RFC 4954, RFC 4422): octets to octets, for both ends.
#
# The server's side is ServerMechanism, made by SERVER_MECHANISMS[name](context) for each AUTH; the client's side is
# ClientMechanism, made by client_mechanism() for what choose_mechanism() chose. server.py and client.py open with the
# loop that drives them. Rule: the two sides never import each other; what they share is in wire, saslprep, cram, scram.
from .auth import Auth, External, OAuth, Password, TokenSource, XOAuth, as_auth
from .client import MAX_ROUNDS, ClientMechanism, DeriveKey
from .credentials import Credentials, UnverifiedError
from .mechanisms import REVEALING_MECHANISMS, SERVER_MECHANISMS, choose_mechanism, client_mechanism
from .scram import MAX_ITERATIONS, MIN_ITERATIONS
from .server import MIN_SECRET, Challenge, ServerContext, ServerMechanism, Step, Verify
from .wire import REFUSED, SASLError, decode_challenge, decode_response, encode_challenge

__all__ = [
    "MAX_ITERATIONS",
    "MAX_ROUNDS",
    "MIN_ITERATIONS",
    "MIN_SECRET",
    "REFUSED",
    "REVEALING_MECHANISMS",
    "SERVER_MECHANISMS",
    "Auth",
    "Challenge",
    "ClientMechanism",
    "Credentials",
    "DeriveKey",
    "External",
    "OAuth",
    "Password",
    "SASLError",
    "ServerContext",
    "ServerMechanism",
    "Step",
    "TokenSource",
    "UnverifiedError",
    "Verify",
    "XOAuth",
    "as_auth",
    "choose_mechanism",
    "client_mechanism",
    "decode_challenge",
    "decode_response",
    "encode_challenge",
]
