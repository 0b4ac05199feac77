# The pool, from the top: pool (the public face, the caller's side), desk (who sends what), slot (a connection's task),
# errand (a message on its way from the one to the other). Beside them: hosts (whom to connect to), ratelimit (how
# fast), feedback (how many), retry (whether to try again), bulk (send_many), trace (what happened), config (numbers).
