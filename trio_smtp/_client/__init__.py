# The client: config (numbers), opening (connect, TLS, AUTH), connection (the dialogue), content and serialize (what is
# sent), outgoing (one message and its fate), sending and body (how it goes out), client (the public face).
