/// Why bytes or a range that came from a peer were refused.
///
/// The local [`Bitfield`](crate::Bitfield) never fails, so every variant is the fault of whoever sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The encoding ends inside a header.
    #[error("the bitfield ends inside the header at byte {offset}")]
    TruncatedHeader {
        /// Where the header begins.
        offset: usize,
    },
    /// A header is longer than its value needs, or its value is 2^53 or more.
    #[error("the bitfield has an overlong header at byte {offset}")]
    OverlongHeader {
        /// Where the header begins.
        offset: usize,
    },
    /// A literal announces more bytes than follow.
    #[error(
        "the bitfield announces a literal of {length} bytes at byte {offset} but only {available} follow"
    )]
    TruncatedLiteral {
        /// Where the literal begins, after its header.
        offset: usize,
        /// How many bytes the header announces.
        length: u64,
        /// How many bytes follow.
        available: usize,
    },
    /// The encoding stands for more bytes than the caller allows.
    #[error("the bitfield stands for more than {max} bytes")]
    TooLong {
        /// The most that is allowed.
        max: usize,
    },
    /// An encoded bitfield does not begin at a multiple of 8 blocks.
    #[error("the bitfield begins at block {start}, which is not a multiple of 8")]
    Unaligned {
        /// Where it begins.
        start: u64,
    },
    /// A range reaches beyond 2^52, where block numbers end.
    #[error("the range from block {start} reaches beyond 2^52")]
    OutOfBounds {
        /// Where the range begins.
        start: u64,
    },
    /// A peer's bits are too scattered to be kept within the memory granted to them.
    #[error("the peer's bits need more than {limit} bytes of memory")]
    MemoryLimit {
        /// The granted memory, in bytes.
        limit: usize,
    },
}
