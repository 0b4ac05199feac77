const nodemailer = require("nodemailer");

async function main(host, port) {
    const pool = nodemailer.createTransport({ host, port, pool: true, maxConnections: 5 });
    const letters = ["a@example.com", "b@example.com"].map((to) =>
        pool.sendMail({ from: "me@example.com", to, subject: "Hello", text: "Hi!\n" })
    );
    for (const info of await Promise.all(letters)) console.log(info.response);
    pool.close();
}

main(process.argv[2], Number(process.argv[3]));
