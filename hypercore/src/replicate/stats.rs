//! What went to and came from a peer, counted.

/// What went to and came from a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Blocks sent.
    pub uploaded_blocks: u64,
    /// Bytes of these blocks.
    pub uploaded_bytes: u64,
    /// Blocks received, verified and stored.
    pub downloaded_blocks: u64,
    /// Bytes of these blocks.
    pub downloaded_bytes: u64,
}

impl Stats {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            uploaded_blocks: self.uploaded_blocks + other.uploaded_blocks,
            uploaded_bytes: self.uploaded_bytes + other.uploaded_bytes,
            downloaded_blocks: self.downloaded_blocks + other.downloaded_blocks,
            downloaded_bytes: self.downloaded_bytes + other.downloaded_bytes,
        }
    }
}
