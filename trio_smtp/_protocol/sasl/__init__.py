# SASL inside SMTP (RFC 4954, RFC 4422): octets to octets, for both ends.
#
# The server's side is ServerMechanism: SERVER_MECHANISMS[name](context) makes one for each AUTH. The client's side is
# ClientMechanism: client_mechanism() makes one of the name that choose_mechanism() returns. server.py and client.py
# open with the loop that drives them. Rule: the two sides never import each other; they share wire, saslprep, cram and
# scram.
from .auth import Auth, External, OAuth, Password, TokenSource, XOAuth, as_auth
from .client import MAX_ROUNDS, ClientMechanism, DeriveKey
from .credentials import Credentials, UnverifiedError
from .mechanisms import CLIENT_MECHANISMS, REVEALING_MECHANISMS, SERVER_MECHANISMS, choose_mechanism, client_mechanism
from .scram import MAX_ITERATIONS, MIN_ITERATIONS
from .server import MIN_SECRET, Challenge, CredentialsReady, MechanismContext, ServerMechanism, Step
from .wire import REFUSED, SASLError, decode_challenge, decode_response, encode_challenge

__all__ = [
    "CLIENT_MECHANISMS",
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
    "CredentialsReady",
    "DeriveKey",
    "External",
    "MechanismContext",
    "OAuth",
    "Password",
    "SASLError",
    "ServerMechanism",
    "Step",
    "TokenSource",
    "UnverifiedError",
    "XOAuth",
    "as_auth",
    "choose_mechanism",
    "client_mechanism",
    "decode_challenge",
    "decode_response",
    "encode_challenge",
]
