# The client: config (numbers), opening and auth (connect, TLS, AUTH), connection (the dialogue), message and content
# (what is sent), report (what became of it), refusals (which are about the connection), allowance (what a connection
# still takes), encoder, mail_parameters, body and transfer (one transaction), sending (all of them), push (piece by
# piece), client (the public face).
