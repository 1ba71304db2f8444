//! The sparse bitfields of Hypercore: which blocks and tree nodes are here, and which a peer has.

mod bits;
mod error;
mod field;
mod index;
mod remote;
pub mod rle;

pub use error::Error;
pub use field::{Bitfield, PageSize};
pub use remote::RemoteBitfield;

/// Block numbers are below this: Hypercore 9 keeps them in doubles, which are exact up to 2^53.
pub const MAX_BLOCKS: u64 = 1 << 53;
