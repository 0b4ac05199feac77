# The server: a task per connection, asking an application's hooks. On _protocol and _wire; knows no client.
