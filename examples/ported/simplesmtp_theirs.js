var simplesmtp = require("simplesmtp"),
    fs = require("fs");

var smtp = simplesmtp.createServer();
smtp.listen(25);

smtp.on("startData", function (envelope) {
    console.log("Message from:", envelope.from);
    console.log("Message to:", envelope.to);
    envelope.saveStream = fs.createWriteStream("message.txt");
});

smtp.on("data", function (envelope, chunk) {
    envelope.saveStream.write(chunk);
});

smtp.on("dataReady", function (envelope, callback) {
    envelope.saveStream.end();
    console.log("Incoming message saved to message.txt");
    callback(null, "ABC1"); // ABC1 is the queue id to be advertised to the client
});
