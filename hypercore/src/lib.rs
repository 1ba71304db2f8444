//! A secure, append-only log for sharing data between peers.
