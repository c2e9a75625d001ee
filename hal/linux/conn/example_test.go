package conn_test

import (
	"fmt"
	"time"

	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/bmxx80"

	"github.com/sandpiper-edge/sandpiper/hal/linux/conn"
)

// An unmodified driver reads the chip "air", which the device owner granted to this module.
func ExampleBoard_I2C() {
	board, err := conn.Dial("/run/sandpiper/module.sock")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer board.Close()
	bus, err := board.I2C("air")
	if err != nil {
		fmt.Println(err)
		return
	}
	sensor, err := bmxx80.NewI2C(bus, 0x76, &bmxx80.DefaultOpts)
	if err != nil {
		fmt.Println(err)
		return
	}
	var env physic.Env
	if err := sensor.Sense(&env); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(env.Temperature, env.Humidity)
}

// A button switches a lamp. Both are lines that the module was granted by name.
func ExampleBoard_Pin() {
	board, err := conn.Dial("/run/sandpiper/module.sock")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer board.Close()
	button, err := board.Pin("button")
	if err != nil {
		fmt.Println(err)
		return
	}
	lamp, err := board.Pin("lamp")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := button.In(gpio.PullNoChange, gpio.BothEdges); err != nil {
		fmt.Println(err)
		return
	}
	for button.WaitForEdge(time.Minute) {
		if err := lamp.Out(button.Read()); err != nil {
			fmt.Println(err)
			return
		}
	}
}
