package mqtt

import (
	"crypto/tls"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// webSocketProtocol is the sub-protocol that a client must offer. The C SDK writes it in capitals.
const webSocketProtocol = "mqtt"

// WebSocket upgrades a request and hands h a connection of binary frames as a byte stream, to give to Server.ServeConn; the connection ends when h returns.
// Mount it at iothub.WebSocketPath. A request without the sub-protocol gets 400, and a text frame ends the connection.
// The Origin header is not looked at: who speaks is settled by the CONNECT, not by anything a browser adds to a request.
func WebSocket(h func(net.Conn, *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !offers(r.Header, webSocketProtocol) {
			http.Error(w, "this address speaks MQTT: offer the WebSocket sub-protocol mqtt", http.StatusBadRequest)
			return
		}
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{webSocketProtocol}, InsecureSkipVerify: true})
		if err != nil {
			return // Accept has answered
		}
		nc := websocket.NetConn(r.Context(), ws, websocket.MessageBinary)
		h(frames{Conn: nc, ws: ws, tls: r.TLS}, r)
	})
}

func offers(h http.Header, protocol string) bool {
	for _, line := range h.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(p), protocol) {
				return true
			}
		}
	}
	return false
}

// frames closes without the closing handshake: waiting five seconds for a client's goodbye would hold up its next connection.
type frames struct {
	net.Conn
	ws  *websocket.Conn
	tls *tls.ConnectionState // of the request that was upgraded
}

// Close implements net.Conn.
func (f frames) Close() error { return f.ws.CloseNow() }
