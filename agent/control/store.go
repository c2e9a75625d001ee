package control

// Store is the durable store in numbers.
type Store struct {
	HeldBytes    int64    `json:"heldBytes"`    // of messages, on disk
	LimitBytes   int64    `json:"limitBytes"`   // that messages may take
	FreeBytes    int64    `json:"freeBytes"`    // of the partition
	Waiting      int      `json:"waiting"`      // records handed over and not yet on disk
	Records      uint64   `json:"records"`      // made durable since the agent started
	Commits      uint64   `json:"commits"`      // for them
	Flushes      uint64   `json:"flushes"`      // of the disk's cache
	WrittenBytes uint64   `json:"writtenBytes"` // since the agent started, without what the file system adds
	Health       string   `json:"health"`       // ok, full, failing, damaged
	Why          []string `json:"why"`          // when it is not ok, and what to do
	Wear         Wear     `json:"wear"`
}

// Wear is what the store writes to the flash.
type Wear struct {
	Hours         float64      `json:"hours"`             // switched on, that the figures are from; a day at most
	WrittenPerDay int64        `json:"writtenPerDay"`     // bytes, reckoned up to a day
	Budget        int64        `json:"budget,omitempty"`  // bytes a day that may be written; 0 = none is set
	AtLimit       string       `json:"atLimit,omitempty"` // what happens then: linger, relaxed, refuse
	Modules       []ModuleWear `json:"modules"`           // most first
}

// ModuleWear is one identity's part.
type ModuleWear struct {
	Identity      string `json:"identity"`
	StoredPerDay  int64  `json:"storedPerDay"`  // bytes of its messages
	WrittenPerDay int64  `json:"writtenPerDay"` // its part of what was written, by its part of what was stored
}
