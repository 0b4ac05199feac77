# The server: a task per connection, asking an application's hooks. On _protocol and _stream; knows no client.
