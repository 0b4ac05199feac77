# The pool, from the top: pool (the public face, the caller's side), dispatcher (which worker sends what), worker (the
# task of a connection), with pipeline (several messages in flight), connector (how it comes by a connection), health
# (what is known of the servers: hosts, feedback), riding (which of them bear several messages in flight) and attempt
# (one try of a message). Beside them: ratelimit (how fast), retry (whether to try again), bulk (send_many), trace (what
# happened), config (numbers).
