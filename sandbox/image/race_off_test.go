//go:build !race

package image

const raced = false
