package oci

import (
	"hash/maphash"
	"strings"
)

// nodes are the nodes of a tree by number, and by parent and name. They grow by chunks, so that a flood of entries costs its own size and
// not that of every smaller list before it too; pointers into them stay good.
type nodes struct {
	chunks [][]node
	length int32
	bytes  int // of names
	seed   maphash.Seed
	table  []int32 // by the hash of parent and name, or none; at least half of it is empty
}

const nodeChunk = 1 << 10

func newNodes() nodes {
	n := nodes{seed: maphash.MakeSeed()}
	n.resize(1 << 10)
	return n
}

// at is a node by its number.
func (n *nodes) at(i int32) *node { return &n.chunks[i/nodeChunk][i%nodeChunk] }

// add appends a node without a name to be found by, and returns its number.
func (n *nodes) add(fresh node) int32 {
	if n.length%nodeChunk == 0 {
		n.chunks = append(n.chunks, make([]node, nodeChunk))
	}
	*n.at(n.length) = fresh
	n.length++
	return n.length - 1
}

// slot is where in the table a name is, or would be.
func (n *nodes) slot(parent int32, name string) int {
	const odd = 0x9e3779b97f4a7c15
	mask := len(n.table) - 1
	at := int(maphash.String(n.seed, name)^uint64(parent)*odd) & mask
	for n.table[at] != none {
		if c := n.at(n.table[at]); c.parent == parent && c.name == name {
			break
		}
		at = (at + 1) & mask
	}
	return at
}

// find is the node of a name, or none.
func (n *nodes) find(parent int32, name string) int32 { return n.table[n.slot(parent, name)] }

// attach makes a new node for a name, in place of one that may be there.
func (n *nodes) attach(parent int32, name string) int32 {
	if int(n.length)*2 >= len(n.table) {
		n.resize(len(n.table) * 2)
	}
	p := n.at(parent)
	i := n.add(node{inode: inode{source: none}, name: strings.Clone(name), parent: parent, first: none, next: p.first, layer: -1, cut: -1, opaque: -1})
	p.first = i
	n.bytes += len(name)
	n.table[n.slot(parent, name)] = i
	return i
}

func (n *nodes) resize(size int) {
	old := n.table
	n.table = make([]int32, size)
	for k := range n.table {
		n.table[k] = none
	}
	for _, i := range old {
		if i != none {
			c := n.at(i)
			n.table[n.slot(c.parent, c.name)] = i
		}
	}
}
