# The command line, on top of everything else: it uses only what `trio_smtp` exports, as any application would.
