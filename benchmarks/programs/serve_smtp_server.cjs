// Under test: smtp-server (Node). Arguments: PORT TLS CERTIFICATE, as for the Python programs.
const fs = require("fs");
const { SMTPServer } = require("smtp-server");

const [port, tls, certificate] = process.argv.slice(2);
const pem = tls === "none" ? undefined : fs.readFileSync(certificate);
const server = new SMTPServer({
    name: "mx.test.example",
    authOptional: true,
    disableReverseLookup: true,
    disabledCommands: tls === "starttls" ? ["AUTH"] : ["AUTH", "STARTTLS"],
    secure: tls === "implicit",
    key: pem,
    cert: pem,
    logger: false,
    onData(stream, session, callback) {
        stream.on("data", () => {});
        stream.on("end", () => callback(null, "2.0.0 OK: queued as ABC1"));
    },
});
server.on("error", () => {}); // a client has disconnected
server.listen(Number(port), "127.0.0.1", 4096);
