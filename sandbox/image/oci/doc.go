// Package oci reads images of the Open Container Initiative, and Docker's own form of them, and merges their layers into one
// EROFS image.
//
// The nouns: an [Archive] is an OCI layout or what `docker save` wrote, as a directory or a tar file; a [Descriptor] names a blob
// by digest and size; an [Image] is one manifest chosen for this machine, with its [Config] and its [Layer]s; a tree is what the
// layers say together, held as metadata only; [Merge] writes it. A registry is spoken to by the [Client].
//
// Nothing of a layer ever becomes a file of the host. The layers are read twice. The first time, from the topmost down, every entry is
// checked and entered into the tree unless something above hides it, and both digests of the layer are compared. Then the image is
// laid out, with holes where contents go, and read back by an independent reader that says where each content belongs. The second
// time the contents are written there, and the layer's digest is compared again, so that nobody can exchange a layer in between.
//
// The package owns no goroutine. Memory is some hundred bytes an entry, whatever the sizes of files and layers.
//
// The trap: a name in a layer is a claim. It is never given to the kernel, and a link is never followed, neither here nor on the host.
//
// # What becomes of an entry
//
//	file, directory      as it is, with owner, permissions, sticky bit and time (nanoseconds)
//	symbolic link        as it is: it is resolved inside the sandbox only
//	hard link            another name of its target's inode, so that its content is there once
//	set-id bits          removed and counted: sandboxes are mounted nosuid
//	attributes           user.* are kept, all others removed and counted (file capabilities among them)
//	device, pipe         refused (E_NODE): a sandbox makes its own devices
//	.wh.NAME             hides NAME of the layers below
//	.wh..wh..opq         hides what the layers below have in its directory
//	a directory that no layer describes has mode 0755, owner 0:0 and the time 0
//
// Of two entries with one name in a layer the last counts. An entry below something that is no directory is refused (E_PATH).
package oci
