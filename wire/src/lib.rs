//! The encrypted wire protocol of Hypercore 9 as a value: bytes in, events and bytes out.
