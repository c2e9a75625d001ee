// Package image keeps the images of modules on the device: it fetches bundles, checks them, stores them by digest, mounts them
// read-only and collects what nobody needs.
//
// The nouns: a [Store] owns one directory; an [Image] is an installed bundle, named by the digest of its signed manifest; a
// reference is where a bundle comes from (https://, file://, or bundle:sha256:… for one already here); a mount is the image as
// a directory under the run directory; the floor is a module's lowest sequence that may still be installed. Nothing is ever
// unpacked: an image stays one file, and the kernel reads it as it is.
//
// Run owns one goroutine, which scrubs; else the store has none but those that a call starts and ends. Fetches run one at a time,
// checks before a mount one at a time, and neither waits for the other; a scrub waits for a fetch only when it has something to
// repair. Everything else is short and behind one mutex. The directory belongs to one process: Open locks it.
//
// Where the file system has fs-verity, an image is sealed at its first mount, once it was read whole and found good: the kernel guards it
// from then on, and later mounts take no time. Elsewhere each mount reads it whole. [Probe] says which it is.
//
// The trap: Fetch installs and Mount verifies, but only Commit raises the floor. Call it when the module has proved itself, or
// an attacker's old bundle stays installable; call it too early, and a bad release cannot be taken back.
//
// # On disk
//
// All of it is 0700 or 0600, owned by the agent's user.
//
//	{dir}/lock               locked while a store is open
//	{dir}/floors.json        sequences, by module; version 1
//	{dir}/metered.json       bytes that came over metered links this month; version 1
//	{dir}/notes.json         pins, what modules need and needed, where bundles came from, when images were read whole; version 1
//	{dir}/blobs/<d>.spm      everything of a bundle before its payload; d is the manifest's SHA-256. Its presence, with the
//	                         image, is what "installed" means
//	{dir}/blobs/<d>.oci      the same of an OCI image: its names, its config, and the digests of its image; d is its manifest's
//	{dir}/blobs/<i>.img      an image, 0400; i is the SHA-256 of its content
//	{dir}/stage/<i>.part     an image being fetched: chunks in order from the start, as many as arrived
//	{dir}/stage/<i>.head     what precedes the payload of the bundle that is being fetched, and where from
//	{dir}/stage/<i>.tail     the start of a chunk that was cut
//	{dir}/stage/<a>-<b>.spd  a delta that arrives
//	{dir}/stage/<i>.repair   chunks for an installed image that lost them
//	{dir}/stage/<l>.blob     a layer of an OCI image that arrives; l is its digest
//	{dir}/stage/<d>.merge    layers becoming an image; of no use to the next agent
//	{mounts}/<d16>           a mounted image
//	{mounts}/<d16>.mount     which mount that is, so that the next agent knows its own
//
// Every file is written beside its place as {name}.new, synced, renamed, and the directory synced; the image comes before its .spm.
//
// # After a power cut
//
// Whatever a fetch was at, and whichever write, sync or rename the disk refused, the next Open finds a bundle in one of these states,
// and the next Fetch of it brings only what is missing:
//
//	absent     nothing of it, or a part file whose head is not there: its chunks are checked again and kept
//	begun      .part with what arrived, .head, perhaps .tail and a delta: the rest is fetched
//	image      blobs/<i>.img without a .spm: the bundle's start is fetched, and the image adopted
//	installed  .img and .spm; a .head that was left is swept after a week
//
// and an OCI image in one of these:
//
//	absent     nothing, or layers in the stage that are gone on with; what was merged is merged again
//	installed  .img and .oci; its name may still be missing, which the next pull gives it
//	rotten     the same while it is repaired: the old file or the whole new one; of one that is mounted, pieces good or as they were
//
// A floor, a pin or a count is the old one or the new one. A collection leaves an image whose .spm is gone, which the next one removes.
// A repair leaves chunks good or rotten, as they were, and those that came for it in the stage. A file that ends in .new is nobody's.
package image
