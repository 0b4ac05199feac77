// Under test: nodemailer's pool (Node). Arguments: PORT and then a JSON object with the options of sending.py.
const { Readable } = require("stream");
const nodemailer = require("nodemailer");

const options = JSON.parse(process.argv[3]);
const LINE = "a line of the message, seventy-two octets long, as mail in flight is.\r\n";
const BASE64_LINE = "VGhpcyBpcyB3aGF0IGFuIGF0dGFjaG1lbnQgbG9va3MgbGlrZSBpbiBhIG1haWwgbWVzc2FnZSBv\r\n";
const HEADER = "From: <a@test.example>\r\nTo: <b@test.example>\r\nSubject: load\r\n\r\n";
const PIECE = 65536;

const text = (size) => {
    const line = options.prose || size < PIECE ? LINE : BASE64_LINE;
    return Buffer.from(HEADER + line.repeat(Math.max(1, Math.round((size - HEADER.length) / line.length))));
};
const whole = options.streamed ? null : text(options.size);
const piece = options.streamed ? text(2 * PIECE).subarray(0, PIECE) : null;

function* pieces() {
    for (let left = options.size; left > 0; left -= PIECE) yield left < PIECE ? piece.subarray(0, left) : piece;
}

const to = Array.from({ length: options.recipients }, (_, number) => `b${number}@test.example`);
const pool = nodemailer.createTransport({
    pool: true,
    host: "127.0.0.1",
    port: Number(process.argv[2]),
    maxConnections: options.connections,
    maxMessages: Infinity,
    name: "client.test.example",
    ignoreTLS: true,
});

async function send(messages) {
    let left = messages;
    const work = async () => {
        while (left-- > 0) {
            const raw = options.streamed ? Readable.from(pieces(), { objectMode: false }) : whole;
            await pool.sendMail({ envelope: { from: "a@test.example", to }, raw });
        }
    };
    await Promise.all(Array.from({ length: options.connections }, work));
}

async function main() {
    await send(options.warm_up);
    console.log("ready");
    await new Promise((resolve) => process.stdin.once("data", resolve));
    const began = process.hrtime.bigint();
    await send(options.messages);
    console.log(JSON.stringify({ seconds: Number(process.hrtime.bigint() - began) / 1e9 }));
    process.stdin.once("end", () => pool.close());
    process.stdin.resume();
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
