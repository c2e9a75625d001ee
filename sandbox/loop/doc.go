// Package loop puts a loop device before a file, for file systems that the kernel mounts from block devices only.
//
// [Bind] makes and binds a device in one step (LOOP_CONFIGURE, Linux 5.8). The kernel frees it with its last user: the caller closes
// what Bind returned once it is mounted. [Unmount] takes a mount away, and waits for one that is busy for a moment. [Alone]
// waits until a file has no device any more, before it gets one that writes. The room owns nothing and has no goroutine.
//
// The trap: a device that is neither mounted nor held open is gone, and one whose mount was taken away may still be mounted elsewhere.
package loop
