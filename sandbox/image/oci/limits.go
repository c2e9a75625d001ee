package oci

// Bounds of what is believed. A layer's plain size is bounded by the caller's limit and by maxRatio.
const (
	maxDocument  = 1 << 20 // bytes of an index, a manifest or a config
	maxLayers    = 128
	maxManifests = 1024      // in an index
	maxNested    = 2         // indexes in indexes
	maxEntries   = 100_000   // of all layers together, hidden ones too, and directories that none describes
	maxPath      = 4095      // bytes, of a path and of a link's target
	maxName      = 255       // bytes
	maxDeep      = 64        // directories below each other; what a finished image is checked for too
	maxXattrs    = 2048      // bytes of all kept attributes of an entry
	maxHeld      = 4 << 20   // bytes of names, targets and attributes, as they are held while an image is merged
	maxRatio     = 250       // plain to compressed bytes, beyond the first freePlain
	freePlain    = 128 << 20 // plain bytes of a layer that may be compressed however well
	zstdWindow   = 8 << 20   // bytes; more needs --ultra or --long when compressing
	blockSize    = 4096
)
