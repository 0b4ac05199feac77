"""Behind HAProxy: the client's address comes in a PROXY header.

It is believed from the proxy's network only.

In haproxy.cfg: ``server mail 127.0.0.1:2525 send-proxy-v2``
"""

import trio

import trio_smtp


class Handler(trio_smtp.Handler):
    async def on_connect(self, session):
        header = session.proxy
        kind = f"PROXY header, version {header.version}" if header else "direct"
        print(f"{session.host} ({kind})")

    async def on_data(self, session, envelope, body):
        await body.read()


CONFIG = trio_smtp.ServerConfig(proxy_protocol_from=["127.0.0.0/8"])

if __name__ == "__main__":
    trio.run(lambda: trio_smtp.serve(Handler(), 2525, host="127.0.0.1", config=CONFIG))
