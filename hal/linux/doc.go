// Package linux talks to the kernel for pins, buses and sensors: GPIO lines over character device version 2, I2C and
// SMBus, SPI, 1-wire, industrial I/O, hwmon, thermal zones, power supplies, PWM, LEDs, serial ports with Modbus, CAN.
// It owns its system calls; no library stands between it and the kernel's documents.
//
// Things are found by names that stay (a chip's label, a line's name, a USB port, a device tree node, a device path)
// and never by the kernel's numbers, which change at each start. A name that fits two things is an error that names
// both. Descriptors are kept open: a device that is plugged out answers ENODEV, and uevents tell when it is back.
//
// A Board is the kernel as the contract of package hal has it: a hal.Backend that opens resources as their owner named them. Each error
// has a Code of the module API. An output is a hal.Holder: its descriptor and its SafeAction are what a process that outlives the agent
// needs to keep it, a Vault there and a Keeper here, and Adopt takes it back without a move on the pin.
//
// Nothing here starts a goroutine of its own except the one behind Changes; each bus is driven by one
// worker of package hal, so a call that hangs in the kernel costs that bus and no other.
//
// The trap: a line's release is not a safe state. What the pin does when its last descriptor closes is the
// controller's choice, so an output is driven to its safe value before it is closed, always.
package linux
