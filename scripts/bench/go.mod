module github.com/sandpiper-edge/sandpiper/scripts/bench

go 1.26.8

require (
	github.com/sandpiper-edge/sandpiper v0.0.0
	golang.org/x/sync v0.25.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/fxamacker/cbor/v2 v2.10.0 // indirect
	github.com/mochi-mqtt/server/v2 v2.7.9 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
)

replace github.com/sandpiper-edge/sandpiper => ../..
