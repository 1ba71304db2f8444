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
    /// A block of so many bytes was sent.
    pub(crate) const fn count_upload(&mut self, bytes: u64) {
        self.uploaded_blocks = self.uploaded_blocks.saturating_add(1);
        self.uploaded_bytes = self.uploaded_bytes.saturating_add(bytes);
    }

    /// A block of so many bytes was received, and stored.
    pub(crate) const fn count_download(&mut self, bytes: u64) {
        self.downloaded_blocks = self.downloaded_blocks.saturating_add(1);
        self.downloaded_bytes = self.downloaded_bytes.saturating_add(bytes);
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            uploaded_blocks: self.uploaded_blocks.saturating_add(other.uploaded_blocks),
            uploaded_bytes: self.uploaded_bytes.saturating_add(other.uploaded_bytes),
            downloaded_blocks: self
                .downloaded_blocks
                .saturating_add(other.downloaded_blocks),
            downloaded_bytes: self.downloaded_bytes.saturating_add(other.downloaded_bytes),
        }
    }
}
