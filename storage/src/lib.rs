//! The six files of a Hypercore 9 on any random-access storage.
