//go:build race

package image

const raced = true // its own memory is several times that of the program
