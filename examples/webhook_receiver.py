"""A web service to try webhook.py with: it prints what it gets.

python webhook_receiver.py
python webhook.py http://localhost:8000/
"""

import http.server
import json


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(json.dumps(report, indent=2))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    http.server.HTTPServer(("localhost", 8000), Hook).serve_forever()
