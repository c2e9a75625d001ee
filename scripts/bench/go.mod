module github.com/sandpiper-edge/sandpiper/scripts/bench

go 1.26.8

require github.com/sandpiper-edge/sandpiper v0.0.0

replace github.com/sandpiper-edge/sandpiper => ../..
