//! The crate against Hypercore 9, against simpler models, and against hostile peers.

mod extremes;
mod files;
mod hostile;
mod model;
mod oracle;
mod pages;
mod rle;
mod vectors;
