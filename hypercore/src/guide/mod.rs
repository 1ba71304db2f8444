//! The guide: what is behind the names, in the order in which questions come up.
//!
//! | page | answers |
//! | --- | --- |
//! | [`recipes`] | How do I ...? |
//! | [`semantics`] | When does this wait, download, end, and survive? |
//! | [`keys`] | Who can read, who can write, and what do strangers learn? |
//! | [`forks`] | May I back up, copy or move a log I write to? |
//! | [`space`] | What is in the files, and what does `clear` free? |
//! | [`limits`] | How much of everything is there at most? |
//! | [`errors`] | What does this error mean, and what do I do? |
//! | [`generations`] | What is version 9, and what of 10 and 11? |
//! | [`format`](mod@format) | What is in the files and on the wire, byte for byte? |
//!
//! The tour is on the [first page](crate). All examples are compiled and run as tests.

#[doc = include_str!("recipes.md")]
pub mod recipes {}

#[doc = include_str!("semantics.md")]
pub mod semantics {}

#[doc = include_str!("keys.md")]
pub mod keys {}

#[doc = include_str!("forks.md")]
pub mod forks {}

#[doc = include_str!("space.md")]
pub mod space {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("generations.md")]
pub mod generations {}

#[doc = include_str!("format.md")]
pub mod format {}
