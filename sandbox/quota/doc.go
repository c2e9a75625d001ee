// Package quota bounds how many bytes a module's data directory can hold, such
// that the bound holds whatever the module does.
//
// The nouns:
//
//   - A [Means] is how: a project quota of the file system the directory lies on
//     (ext4, XFS and F2FS mounted with prjquota, Linux 5.14), else a file of that
//     size with a file system of its own, mounted on the directory. Both bound the
//     number of files, too.
//   - [Bound] sets it, or sets it anew after a restart; [Release] unmounts what
//     had to be mounted. The data stays.
//
// Nothing here starts a goroutine. What a power cut leaves: a file that was not
// finished has another name and is made anew; a directory whose file is not
// mounted is empty, and Bound mounts it before the module begins, repaired by e2fsck
// where the device has it.
//
// The one trap: the loop file needs mkfs.ext4 on the device, once per directory.
// Without either means the error is [ErrUnbounded], which says why.
package quota
