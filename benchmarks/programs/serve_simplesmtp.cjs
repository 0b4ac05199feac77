// Under test: simplesmtp (Node), the ancestor of smtp-server. Arguments: PORT.
const simplesmtp = require("simplesmtp");

const server = simplesmtp.createServer({ name: "mx.test.example", disableDNSValidation: true, SMTPBanner: "test" });
server.on("startData", () => {});
server.on("data", () => {});
server.on("dataReady", (connection, callback) => callback(null, "ABC1"));
server.on("error", () => {});
server.listen(Number(process.argv[2]), "127.0.0.1", () => {});
