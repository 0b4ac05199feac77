# The command line. Like any application, it uses only what `trio_smtp` exports.
