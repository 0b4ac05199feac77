# The client: config (numbers), reaching, opening and auth (connect, TLS, AUTH), connection (the dialogue), message,
# content and signing (what is sent), report (what became of it), refusals (which are about the connection), allowance
# (what a connection still takes), encoder, mail_parameters, body and transfer (one transaction), sending (all of them),
# push (piece by piece), steps (command by command), client (the public face).
