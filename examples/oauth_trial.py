"""Try OAuth on one machine: a token endpoint, a server that wants XOAUTH2, a client.

pip install 'trio-smtp[oauth,testing]'
python oauth_trial.py
"""

import http.server
import threading

import trio

import trio_smtp
from trio_smtp.oauth import RefreshToken
from trio_smtp.testing import make_certificates, open_server


class Tokens(http.server.BaseHTTPRequestHandler):  # in place of the provider's endpoint
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = (
            b'{"access_token": "token", "token_type": "Bearer", "expires_in": 3600}'
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


class Mail(trio_smtp.Handler):  # in place of the provider's mail server
    async def on_auth(self, session, credentials):
        return credentials.token == "token" and credentials.username

    async def on_data(self, session, envelope, body):
        print(f"{session.identity} sends {len(await body.read())} octets")


async def main(token_port: int) -> None:
    url = f"http://127.0.0.1:{token_port}/token"
    login = trio_smtp.OAuth("me@example.com", RefreshToken(url, "id", "refresh"))
    config = trio_smtp.ServerConfig(auth="required", auth_mechanisms=("XOAUTH2",))
    certificates = make_certificates()
    async with (
        open_server(
            Mail(), config=config, tls="starttls", certificates=certificates
        ) as server,
        trio_smtp.open_pool(
            server.host,
            server.port,
            tls="starttls",
            ssl_context=certificates.client_context(),
            auth=login,
        ) as pool,
    ):
        letter = b"Subject: Hello\r\n\r\nHi!\r\n"
        result = await pool.send("me@example.com", ["you@example.com"], letter)
        print(result.reply)


def with_tokens() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as tokens:
        threading.Thread(target=tokens.serve_forever, daemon=True).start()
        trio.run(main, tokens.server_port)
        tokens.shutdown()


if __name__ == "__main__":
    with_tokens()
