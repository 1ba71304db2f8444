use std::fmt;

/// One of the six files of a log. A later format may have more.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// The public key: 32 bytes.
    Key,
    /// The secret key: 64 bytes, absent for readers.
    SecretKey,
    /// The Merkle tree: a header, then 40 bytes per node.
    Tree,
    /// The blocks, one after the other, without a header.
    Data,
    /// Which blocks and nodes are stored: a header, then pages.
    Bitfield,
    /// The signatures: a header, then 64 bytes per block.
    Signatures,
}

impl FileName {
    /// All six, in the order in which Node opens them (Hypercore 9 `lib/storage.js`, `openKey` and `open`).
    /// A later format has a list of its own.
    pub const ALL: [Self; 6] = [
        Self::Key,
        Self::SecretKey,
        Self::Tree,
        Self::Data,
        Self::Bitfield,
        Self::Signatures,
    ];

    /// The name of the file in a directory.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::SecretKey => "secret_key",
            Self::Tree => "tree",
            Self::Data => "data",
            Self::Bitfield => "bitfield",
            Self::Signatures => "signatures",
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
