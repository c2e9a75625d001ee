package mqtt

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// webSocketProtocol is the sub-protocol that a client must offer. The C SDK writes it in capitals.
const webSocketProtocol = "mqtt"

// WebSocket upgrades a request and hands h a connection of binary frames as a byte stream, to give to Server.ServeConn; the connection ends when h returns.
// Mount it at iothub.WebSocketPath. A request without the sub-protocol gets 400, and a text frame ends the connection.
// The Origin header is not looked at: who speaks is settled by the CONNECT, not by anything a browser adds to a request.
func WebSocket(h func(net.Conn, *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		spelling, ok := offered(r.Header, webSocketProtocol)
		if !ok {
			http.Error(w, "this address speaks MQTT: offer the WebSocket sub-protocol mqtt", http.StatusBadRequest)
			return
		}
		upgrader := websocket.Upgrader{Subprotocols: []string{spelling}, CheckOrigin: func(*http.Request) bool { return true }}
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered
		}
		defer func() { _ = ws.Close() }()
		h(&frames{Conn: ws.NetConn(), ws: ws, tls: r.TLS}, r)
	})
}

// offered finds a sub-protocol among those of the request, in whatever case, and returns the client's spelling: the answer must
// repeat it (RFC 6455 section 4.1).
func offered(h http.Header, protocol string) (string, bool) {
	for _, line := range h.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); strings.EqualFold(p, protocol) {
				return p, true
			}
		}
	}
	return "", false
}

// frames is the byte stream inside the binary messages of a WebSocket. Addresses and Close are the connection's below, so closing
// skips the handshake of goodbyes: waiting for a client's would hold up its next connection.
type frames struct {
	net.Conn
	ws  *websocket.Conn
	tls *tls.ConnectionState // of the request that was upgraded

	message io.Reader  // what is left of the message that Read is in
	writing sync.Mutex // a WebSocket takes one writer
}

// Read implements net.Conn. A close frame is the end of the stream.
func (f *frames) Read(p []byte) (int, error) {
	for {
		if f.message == nil {
			kind, message, err := f.ws.NextReader()
			if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, fmt.Errorf("a WebSocket frame of kind %d: MQTT comes in binary ones", kind)
			}
			f.message = message
		}
		n, err := f.message.Read(p)
		if errors.Is(err, io.EOF) {
			f.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn; p becomes one message.
func (f *frames) Write(p []byte) (int, error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	if err := f.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline implements net.Conn.
func (f *frames) SetDeadline(t time.Time) error {
	return errors.Join(f.SetReadDeadline(t), f.SetWriteDeadline(t))
}

// SetWriteDeadline implements net.Conn: now for a write that is waiting, and for those to come, before which the WebSocket sets its own.
func (f *frames) SetWriteDeadline(t time.Time) error {
	if err := f.Conn.SetWriteDeadline(t); err != nil {
		return err
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.ws.SetWriteDeadline(t)
}
