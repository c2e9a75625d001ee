// Package mqtt is the server side of IoT Hub's MQTT 3.1.1 dialect: the session loop that the local broker and the hub share.
//
// The nouns: a [Server] accepts connections; a [Handler] judges each CONNECT ([Hello]) and answers with a [Session]; the
// session receives what the client sends, and sends through its [Conn]. A [Publish] is acknowledged by its own Ack, whenever
// and from whichever goroutine the data is safe.
//
// There is no topic tree, no retained message and no quality of service 2 here: the dialect has none. What a topic means
// is the handler's business (package iothub).
//
// Who owns the goroutines: each connection has two. The caller of [Server.ServeConn] (or a goroutine of [Server.Serve]) reads,
// calls every method of the Session and every acked func; it never waits for a disk unless the session makes it. The other one
// writes, and takes everything that is ready (acknowledgements, answers, messages) in one Write. Both have ended when
// ServeConn returns.
//
// The trap: acknowledgements leave in the order in which the publishes came. One Publish that is never acknowledged holds
// back every later one of its connection, and when Config.Window of them wait the socket is not read any more. That is the
// back-pressure, and it is also how to hang a client: a session that cannot keep a message must close the connection or
// try again, never forget it.
package mqtt
