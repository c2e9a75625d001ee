// Package conn is for modules written in Go: it gives the pins, I2C chips and SPI devices that a module was granted as
// the interfaces of periph.io, so that an unmodified driver runs in a sandbox without a device node.
//
//	board, err := conn.Dial("/run/sandpiper/module.sock")
//	if err != nil { … }
//	defer board.Close()
//	bus, err := board.I2C("air")
//	if err != nil { … }
//	sensor, err := bmxx80.NewI2C(bus, 0x76, &bmxx80.DefaultOpts)
//
// A Board is the module's socket, an I2C bus is one granted chip, a Port one granted SPI device, a Pin one granted line.
// Each call is one request to the agent, which checks the grant, waits for its turn on the bus and moves the bytes.
// No goroutine runs but the one that follows a pin's edges, from In with an edge until Halt.
//
// The trap: a bus is one chip. The address that a driver passes says which chip it believes in, and a second address
// on one bus is refused here, because the agent would talk to the granted chip whatever the driver meant.
package conn
