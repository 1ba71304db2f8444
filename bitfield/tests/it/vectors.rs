//! Reading the vectors.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name)
}

pub(crate) fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

/// Bytes, as hex or as runs of equal bytes (`[["ff", 30], ...]` or `[[255, 30], ...]`).
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Bytes {
    Hex(String),
    HexRuns(Vec<(String, usize)>),
    Runs(Vec<(u8, usize)>),
}

impl Bytes {
    pub(crate) fn get(&self) -> Vec<u8> {
        match self {
            Self::Hex(hex) => hex::decode(hex).unwrap(),
            Self::HexRuns(runs) => runs
                .iter()
                .flat_map(|(byte, n)| hex::decode(byte).unwrap().repeat(*n))
                .collect(),
            Self::Runs(runs) => runs.iter().flat_map(|&(byte, n)| vec![byte; n]).collect(),
        }
    }
}
